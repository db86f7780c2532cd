#pragma once

#include <asio/io_context.hpp>
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

  struct Reply {
    std::string line;  // without its end
    /// When set, instead of the line: gets the connection (blocking) and what came on it behind the request.
    /// Called on the I/O thread; must not block and must not throw.
    std::function<void(UniqueFd socket, std::string_view received)> take_over;
  };
  /// Called on the I/O thread with a line without its end; must not block and must not throw.
  using Handler = std::function<Reply(std::string_view line)>;

  /// Without one, for instance on a file system that knows no sockets, only the command line misses
  /// something: a warning.
  ControlSocket(asio::io_context& io, const std::string& folder, Handler handler);
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  /// The caller's side: sends `line` to the server of this folder and returns its answer. Throws unavailable
  /// when none is listening.
  static std::string ask(const std::string& folder, const std::string& line);
  /// The same for an answer that does not end the connection: sends `line` and returns the connection.
  static UniqueFd connect(const std::string& folder, const std::string& line);

 private:
  class Listener;
  std::shared_ptr<Listener> listener_;
};

}  // namespace hutch::sandbox
