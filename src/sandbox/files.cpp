#include "sandbox/files.h"

#include <fmt/format.h>

#include <memory>

#include "sandbox/request.h"

namespace hutch::sandbox {

namespace {

/// One file request on its stream, from the first frame to the last.
class FileStream : public WaitedStream {
 public:
  FileStream(Channel& channel, std::function<bool(std::string_view)> sink)
      : channel_(channel), sink_(std::move(sink)) {}

  /// Throws what went wrong instead: the agent's error, timeout, or the end of the sandbox.
  FileInfo wait(bool FileStream::*reached, const FileCall& call) {
    const bool in_time =
        wait_until(call.stop, call.deadline, [&] { return this->*reached || failed() || closed(); });
    const std::lock_guard lock(mutex_);
    if (failed()) throw failure();
    if (closed()) throw Error(Errc::unavailable, "the sandbox has ended");
    if (!in_time)
      throw Error(Errc::timeout,
                  call.stop.stop_requested() ? "cancelled" : "the sandbox's agent did not answer in time");
    return {.state = info_.state, .mode = info_.mode, .created = info_.created != 0};
  }

  bool informed_ = false, done_ = false;

 private:
  void handle(const wire::Header& header, std::string_view payload) override {
    switch (header.type) {
      case wire::Type::file_info:
        informed_ = wire::decode(payload, info_);
        break;
      case wire::Type::done:
        done_ = true;
        break;
      case wire::Type::data:
        on_data(payload);
        break;
      default:
        break;
    }
  }

  void on_data(std::string_view bytes) {
    if (done_) return;
    if (!sink_(bytes)) {
      channel_.send_bytes(wire::Type::cancel, id());
      done_ = true;
      return;
    }
    consumed_ += static_cast<uint32_t>(bytes.size());
    if (consumed_ >= wire::kWindow / 4)
      channel_.send(wire::Type::credit, id(), wire::Credit{std::exchange(consumed_, 0)});
  }

  Channel& channel_;
  std::function<bool(std::string_view)> sink_;
  uint32_t consumed_ = 0;
  wire::FileInfo info_;
};

/// A request under way: cancelled when it is left before its end, so that the agent forgets it too.
class FileRequest {
 public:
  FileRequest(Channel& channel, std::function<bool(std::string_view)> sink)
      : channel_(channel), stream_(channel, std::make_shared<FileStream>(channel, std::move(sink))) {}
  ~FileRequest() {
    if (!finished_) channel_.send_bytes(wire::Type::cancel, stream_.id());
  }
  FileRequest(const FileRequest&) = delete;
  FileRequest& operator=(const FileRequest&) = delete;

  uint32_t id() const { return stream_.id(); }
  FileInfo finish(bool FileStream::*reached, const FileCall& call) {
    FileInfo info = stream_->wait(reached, call);
    finished_ = true;
    return info;
  }

 private:
  Channel& channel_;
  Registered<FileStream> stream_;
  bool finished_ = false;
};

void check_path(const std::string& path) {
  if (path.find('\0') != std::string::npos) throw Error(Errc::invalid_argument, "a NUL byte in a path");
}

}  // namespace

FileInfo read_file(Channel& channel, const std::string& path, uint64_t max_bytes,
                   const std::function<bool(std::string_view)>& sink, const FileCall& call) {
  check_path(path);
  FileRequest request(channel, sink);
  channel.send(wire::Type::read_file, request.id(),
               wire::ReadFile{.path = path, .offset = 0, .max_bytes = max_bytes});
  return request.finish(&FileStream::done_, call);
}

FileInfo write_file(Channel& channel, const std::string& path, std::string_view content,
                    const WriteOptions& options, const FileCall& call) {
  check_path(path);
  FileRequest request(channel, [](std::string_view) { return true; });
  wire::WriteFile message;
  message.path = path;
  message.options = static_cast<uint8_t>(wire::WriteFile::kMakeParents |
                                         (options.create_new ? wire::WriteFile::kCreateNew : 0) |
                                         (options.append ? wire::WriteFile::kAppend : 0) |
                                         (options.executable ? wire::WriteFile::kExecutable : 0) |
                                         (options.expected != nullptr ? wire::WriteFile::kExpect : 0));
  if (options.expected != nullptr) message.expected = *options.expected;
  message.user = options.user;
  // Nothing waits for `ready`: if the agent refuses, it ignores the data that is already on its way.
  channel.send(wire::Type::write_file, request.id(), message);
  for (; !content.empty(); content.remove_prefix(std::min<size_t>(content.size(), wire::kDataChunk)))
    channel.send_bulk(wire::Type::data, request.id(), content.substr(0, wire::kDataChunk), call.deadline);
  channel.send_bytes(wire::Type::commit, request.id());
  return request.finish(&FileStream::informed_, call);
}

void make_folder(Channel& channel, const std::string& path, const std::string& user, const FileCall& call) {
  check_path(path);
  FileRequest request(channel, [](std::string_view) { return true; });
  channel.send(wire::Type::make_folder, request.id(), wire::MakeFolder{.path = path, .user = user});
  request.finish(&FileStream::done_, call);
}

void list_files(Channel& channel, const std::string& path, uint32_t depth,
                const std::function<bool(const FileEntry&)>& visit, const FileCall& call) {
  check_path(path);
  FileRequest request(channel, [&](std::string_view records) {
    wire::Decoder decoder(records);
    while (decoder.more()) {
      wire::Entry entry;
      entry.fields(decoder);
      if (!decoder.ok() || !visit({.path = std::string(entry.path),
                                   .target = std::string(entry.target),
                                   .mode = entry.mode,
                                   .size = entry.size,
                                   .mtime_s = entry.mtime_s}))
        return false;
    }
    return true;
  });
  channel.send(wire::Type::list_files, request.id(), wire::ListFiles{.path = path, .depth = depth});
  request.finish(&FileStream::done_, call);
}

}  // namespace hutch::sandbox
