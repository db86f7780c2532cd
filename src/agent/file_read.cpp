#include <fcntl.h>

#include <algorithm>
#include <limits>

#include "agent/file_stream.h"
#include "agent/sys.h"

namespace hutch::agent {

void FileStream::start_read(const wire::ReadFile& request, Services& services) {
  // O_NONBLOCK: a FIFO without a writer must not hold PID 1.
  fd_.reset(open_beneath(request.path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  if (!fd_) return fail(errno, "read ", request.path, services);
  struct stat status;
  if (fstat(fd_.get(), &status) != 0) return fail(errno, "stat ", request.path, services);
  if (!S_ISREG(status.st_mode)) {
    char text[512];
    size_t size = request.path.copy(text, sizeof text - 32);
    size += std::string_view(": ").copy(text + size, 2);
    size += std::string_view(kind_problem(status.st_mode)).copy(text + size, 30);
    return fail(S_ISDIR(status.st_mode) ? EISDIR : EINVAL, "read ", {text, size}, services);
  }
  if (request.offset > 0 && lseek(fd_.get(), static_cast<off_t>(request.offset), SEEK_SET) < 0) {
    return fail(errno, "seek ", request.path, services);
  }
  kind_ = Kind::read;
  left_bytes_ = request.max_bytes == 0 ? std::numeric_limits<uint64_t>::max() : request.max_bytes;
  services.channel.send(wire::Type::file_info, stream_, info(status));
  queue(services);
}

void FileStream::send_piece_of_file(Services& services) {
  if (credit_ == 0) return;
  const size_t limit =
      std::min({static_cast<uint64_t>(wire::kDataChunk), static_cast<uint64_t>(credit_), left_bytes_});
  char* space = services.channel.chunk_space();
  // Until read() says 0 and not until st_size: kernel files have size 0, and others grow meanwhile.
  const ssize_t count = limit == 0 ? 0 : retry_eintr([&] { return read(fd_.get(), space, limit); });
  if (count < 0) return fail(errno, "read", {}, services);
  if (count == 0) {
    services.channel.send(wire::Type::done, stream_);
    return drop();
  }
  credit_ -= static_cast<uint32_t>(count);
  left_bytes_ -= static_cast<uint64_t>(count);
  services.channel.send_filled(wire::Type::data, stream_, static_cast<size_t>(count));
  queue(services);
}

}  // namespace hutch::agent
