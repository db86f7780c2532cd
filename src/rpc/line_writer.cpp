#include "rpc/line_writer.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::rpc {

LineWriter::Outcome LineWriter::send(const ordered_json& message) {
  const std::string line = to_line(message);
  const std::lock_guard lock(mutex_);
  return write_line(line);
}

LineWriter::Outcome LineWriter::try_send(const ordered_json& message) {
  const std::string line = to_line(message);
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return Outcome::dropped;
  pollfd entry{fd_, POLLOUT, 0};
  const bool has_room = sys::retry_eintr([&] { return ::poll(&entry, 1, 0); }) > 0;
  // One write of up to PIPE_BUF bytes cannot block when there is room; a longer line might stop half-way.
  if (!has_room || line.size() > PIPE_BUF) return Outcome::dropped;
  return write_line(line);
}

LineWriter::Outcome LineWriter::write_line(std::string_view line) {
  while (!line.empty()) {
    if (peer_gone_) return Outcome::peer_gone;
    if (cut_) return Outcome::abandoned;
    if (const Outcome outcome = write_some(line); outcome != Outcome::sent) return outcome;
  }
  return Outcome::sent;
}

LineWriter::Outcome LineWriter::write_some(std::string_view& rest) {
  pollfd entries[2] = {{fd_, POLLOUT, 0}, {abandoned_.fd(), POLLIN, 0}};
  if (sys::retry_eintr([&] { return ::poll(entries, 2, -1); }) < 0) throw sys_error(errno, "poll");
  if (entries[0].revents == 0) {
    cut_ = true;
    return Outcome::abandoned;
  }
  // O_NONBLOCK is no choice: it would also change the descriptor of whoever shares this stream with us. A
  // pipe or socket that polls as writable takes PIPE_BUF bytes without blocking.
  const std::string_view part = rest.substr(0, PIPE_BUF);
  const ssize_t written = sys::retry_eintr([&] { return ::write(fd_, part.data(), part.size()); });
  if (written >= 0) {
    rest.remove_prefix(static_cast<size_t>(written));
    return Outcome::sent;
  }
  if (errno == EAGAIN) return Outcome::sent;
  if (errno != EPIPE && errno != ECONNRESET) log::error("writing to the client failed: errno {}", errno);
  peer_gone_ = true;
  return Outcome::peer_gone;
}

}  // namespace hutch::rpc
