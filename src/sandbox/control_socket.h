#pragma once

#include <asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace hutch::sandbox {

/// The door for the command line: a unix socket `control` in the server's folder of the data folder. One line
/// in, one line out, then it closes, or somebody takes the connection over. Only the server's own user and
/// root are answered.
class ControlSocket {
 public:
  static constexpr size_t kMaxLine = 256 << 10;  // a request
  static constexpr int kMaxAtWork = 16;          // answers that are being made; the next ones wait

  struct Reply {
    std::string line{};  // without its end
    /// When set, instead of the line: makes it, on a thread of its own, so it may take its time. Must not
    /// throw.
    std::function<std::string()> work{};
    /// When set, instead of the line: gets the connection (blocking) and what came on it behind the request.
    /// Called on the I/O thread; must not block and must not throw.
    std::function<void(UniqueFd socket, std::string_view received)> take_over{};
  };
  /// Called on the I/O thread with a line without its end; must not block and must not throw.
  using Handler = std::function<Reply(std::string_view line)>;

  /// Without one, for instance on a file system that knows no sockets, only the command line misses
  /// something: a warning.
  ControlSocket(asio::io_context& io, const std::string& folder, Handler handler);
  /// Waits for the answers that are being made.
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  /// The caller's side: sends `line` to the server of this folder and returns its answer. Throws unavailable
  /// when none is listening, and timeout when it does not answer.
  static std::string ask(const std::string& folder, const std::string& line,
                         std::chrono::seconds timeout = std::chrono::seconds(10));
  /// The same for an answer that does not end the connection: sends `line` and returns the connection.
  static UniqueFd connect(const std::string& folder, const std::string& line,
                          std::chrono::seconds timeout = std::chrono::seconds(10));

 private:
  class Connection;
  class Listener;
  class Workers;
  std::shared_ptr<Workers> workers_;
  std::shared_ptr<Listener> listener_;
};

}  // namespace hutch::sandbox
