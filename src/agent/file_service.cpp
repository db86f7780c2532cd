#include "agent/file_service.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "agent/close_from.h"
#include "agent/file_list.h"
#include "agent/sys.h"

namespace hutch::agent {

wire::FileState state_of(const struct stat& status) {
  constexpr int64_t kSecond = 1'000'000'000;
  return {status.st_ino, static_cast<uint64_t>(status.st_size),
          status.st_mtim.tv_sec * kSecond + status.st_mtim.tv_nsec,
          status.st_ctim.tv_sec * kSecond + status.st_ctim.tv_nsec};
}

const char* kind_problem(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return nullptr;
    case S_IFDIR:
      return "is a folder";
    case S_IFIFO:
      return "is a FIFO";
    case S_IFSOCK:
      return "is a socket";
    default:
      return "is a device";
  }
}

void FileStream::start_list(const wire::ListFiles& request, Services& services) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return fail(errno, "socketpair", {}, services);
  }
  fd_.reset(fds[0]);
  const UniqueFd theirs(fds[1]);
  if (!services.poller.watch(fds[0], EPOLLIN, Source::file, index_))
    return fail(errno, "epoll_ctl", {}, services);
  // Copies, because the child does not have the memory that the request and the services lie in.
  char path[PATH_MAX];
  const wire::ListFiles listing{{path, request.path.copy(path, sizeof path)}, request.depth};
  const int oom_score_adj = services.inherited.oom_score_adj;
  const pid_t pid = fork();
  if (pid < 0) return fail(errno, "fork", {}, services);
  if (pid == 0) {
    if (fds[1] != kControlFd) dup3(fds[1], kControlFd, O_CLOEXEC);
    close_from(kControlFd + 1);
    close(kHostInFd);
    close(kHostOutFd);
    prctl(PR_SET_NAME, "hutch-list");
    // It grows with the folder that it lists: memory pressure takes it, and not the agent.
    OomScore(oom_score_adj).set(kCommandOomScoreAdj);
    run_list_worker(listing);
  }
  kind_ = Kind::list;
  worker_ = pid;
}

/// A message of the worker is one data frame, so a record is never split.
void FileStream::send_piece_of_listing(Services& services) {
  if (!ready_ || credit_ < wire::kDataChunk) return;
  char tag = 0;
  char* space = services.channel.chunk_space();
  iovec parts[2] = {{&tag, 1}, {space, wire::kDataChunk}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  const ssize_t count = retry_eintr([&] { return recvmsg(fd_.get(), &message, MSG_DONTWAIT); });
  if (count < 0 && errno == EAGAIN) {
    ready_ = false;
    return;
  }
  if (count < 1) return fail(EIO, "list: the worker was killed", {}, services);
  const size_t size = static_cast<size_t>(count) - 1;
  switch (static_cast<ListTag>(tag)) {
    case ListTag::data:
      credit_ -= static_cast<uint32_t>(size);
      services.channel.send_filled(wire::Type::data, stream_, size);
      return queue(services);
    case ListTag::done:
      services.channel.send(wire::Type::done, stream_);
      return drop();
    case ListTag::failed: {
      // Copied: the answer is written to where the message lies.
      char text[512];
      int error = EIO;
      std::memcpy(&error, space, std::min(size, sizeof error));
      const size_t text_bytes = std::min(size - std::min(size, sizeof error), sizeof text);
      std::memcpy(text, space + sizeof error, text_bytes);
      return fail(error, "list ", {text, text_bytes}, services);
    }
  }
}

void FileStream::fail(int error, const char* step, std::string_view object, Services& services) {
  char text[512];
  size_t size = std::string_view(step).copy(text, sizeof text);
  size += object.copy(text + size, sizeof text - size);
  services.channel.send_failed(stream_, error, {text, size});
  drop();
}

wire::FileInfo FileStream::info(const struct stat& status) const {
  return {state_of(status), status.st_mode, static_cast<uint8_t>(created_)};
}

void FileStream::on_frame(const Frame& frame, Services& services) {
  const bool writes = kind_ == Kind::write || kind_ == Kind::append;
  wire::Credit credit;
  switch (frame.header.type) {
    case wire::Type::data:
      if (writes) add_data(frame.payload, services);
      return;
    case wire::Type::commit:
      if (writes) commit(services);
      return;
    case wire::Type::cancel:
      return drop();
    case wire::Type::credit:
      if (!wire::decode(frame.payload, credit)) return;
      credit_ = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{credit_} + credit.bytes, wire::kWindow));
      return queue(services);
    default:
      return;
  }
}

void FileStream::on_event(Services& services) {
  ready_ = true;
  queue(services);
}

void FileStream::take_turn(Services& services) {
  if (kind_ == Kind::read) send_piece_of_file(services);
  if (kind_ == Kind::list) send_piece_of_listing(services);
}

void FileStream::on_worker_reaped() {
  worker_ = -1;
  if (kind_ == Kind::over) kind_ = Kind::free;
}

void FileStream::drop() {
  if (*temporary_ != '\0') (void)unlinkat(place_.folder.get(), temporary_, 0);
  const pid_t unreaped = worker_;
  if (unreaped > 0) (void)kill(unreaped, SIGKILL);
  *this = FileStream();
  worker_ = unreaped;
  if (unreaped > 0) kind_ = Kind::over;
}

FileStream* FileService::find(uint32_t stream) {
  const auto is_it = [stream](const FileStream& s) { return s.live() && s.stream() == stream; };
  FileStream* found = std::find_if(streams_.begin(), streams_.end(), is_it);
  return found == streams_.end() ? nullptr : found;
}

FileStream* FileService::take_slot(uint32_t stream, Services& services) {
  FileStream* slot = streams_.find_free();
  if (slot == nullptr) {
    services.channel.send_failed(stream, EAGAIN, "32 file streams at once");
    return nullptr;
  }
  slot->open(stream, streams_.index(*slot));
  return slot;
}

void FileService::read(const wire::ReadFile& request, uint32_t stream, Services& services) {
  if (FileStream* slot = take_slot(stream, services)) slot->start_read(request, services);
}

void FileService::write(const wire::WriteFile& request, uint32_t stream, Services& services) {
  if (FileStream* slot = take_slot(stream, services)) slot->start_write(request, services);
}

void FileService::list(const wire::ListFiles& request, uint32_t stream, Services& services) {
  if (FileStream* slot = take_slot(stream, services)) slot->start_list(request, services);
}

void FileService::make_folder(const wire::MakeFolder& request, uint32_t stream, Services& services) {
  User owner;
  if (const char* problem = find_user(request.user, owner); problem != nullptr)
    return services.channel.send_failed(stream, errno, problem);
  if (const int error = agent::make_folder(request.path, owner); error != 0)
    return services.channel.send_failed(stream, error, "make the folder");
  services.channel.send(wire::Type::done, stream);
}

void FileService::on_frame(const Frame& frame, Services& services) {
  find(frame.header.stream)->on_frame(frame, services);
}

void FileService::on_event(size_t index, Services& services) {
  if (streams_[index].live()) streams_[index].on_event(services);
}

void FileService::take_turn(size_t index, Services& services) {
  streams_[index].take_turn(services);
}

void FileService::drop_all() {
  for (FileStream& stream : streams_) {
    if (stream.live()) stream.drop();
  }
}

bool FileService::has_worker(pid_t pid) const {
  return std::any_of(streams_.begin(), streams_.end(),
                     [pid](const FileStream& s) { return s.worker() == pid; });
}

bool FileService::on_reaped(pid_t pid) {
  for (FileStream& stream : streams_) {
    if (stream.worker() != pid) continue;
    stream.on_worker_reaped();
    return true;
  }
  return false;
}

}  // namespace hutch::agent
