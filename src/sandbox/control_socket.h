#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace hutch::sandbox {

/// The door for the command line: a unix socket `control` in the server's folder of the data folder. One line
/// in, one line out, then it closes. Only the server's own user and root are answered.
class ControlSocket {
 public:
  /// Called on the I/O thread with a line without its end; must not block and must not throw.
  using Handler = std::function<std::string(std::string_view line)>;

  /// Without one, for instance on a file system that knows no sockets, only the command line misses
  /// something: a warning.
  ControlSocket(asio::io_context& io, const std::string& folder, Handler handler);
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  /// The caller's side: sends `line` to the server of this folder and returns its answer. Throws unavailable
  /// when none is listening.
  static std::string ask(const std::string& folder, const std::string& line);

 private:
  class Listener;
  std::shared_ptr<Listener> listener_;
};

}  // namespace hutch::sandbox
