#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "wire/codec.h"

/// What travels between `hutch exec` and a server once the answer to `sandbox/attach` has been sent: a byte
/// for the type, four for the length of the payload in the machine's own order, the payload. Both ends are on
/// one machine.
namespace hutch::sandbox::attach {

enum class Type : uint8_t {
  // client to server
  input = 1,  // bytes for the command's standard input; at most kInputWindow that no `taken` has answered
  input_end,  // no more of it comes
  resize,     // Size: of the client's terminal
  signal,     // Signal: for the command
  // server to client
  output = 64,   // bytes of standard output, or of the terminal
  error_output,  // bytes of standard error
  taken,         // Taken: input that the command's side has taken
  ended,         // Ended: the last one
};

inline constexpr uint32_t kMaxPayload = 32 << 10;
inline constexpr uint32_t kInputWindow = 64 << 10;

struct Size {
  uint16_t rows = 0, columns = 0;
  template <class C>
  void fields(C& c) {
    c(rows, columns);
  }
};

struct Signal {
  uint32_t number = 0;
  template <class C>
  void fields(C& c) {
    c(number);
  }
};

struct Taken {
  uint32_t bytes = 0;
  template <class C>
  void fields(C& c) {
    c(bytes);
  }
};

struct Ended {
  int32_t exit_code = -1;    // -1 when a signal ended it, or hutch failed
  uint32_t signal = 0;       // 0 when it exited, or hutch failed
  std::string_view message;  // for the person: what hutch could not do, or why the signal came
  template <class C>
  void fields(C& c) {
    c(exit_code, signal, message);
  }
};

struct Frame {
  Type type{};
  std::string_view payload;
};

/// `payload` has at most kMaxPayload bytes.
std::string frame(Type type, std::string_view payload = {});
template <class Message>
std::string frame_of(Type type, const Message& message) {
  return frame(type, wire::encode(message));
}

/// Puts frames together from pieces as they come. Keeps no more than one frame and one piece.
class Reader {
 public:
  void add(std::string_view bytes) {
    bytes_.erase(0, std::exchange(used_, 0));
    bytes_ += bytes;
  }
  /// Its payload is there until the next add(). Throws invalid_argument on a length that is not allowed.
  std::optional<Frame> next();

 private:
  std::string bytes_;
  size_t used_ = 0;
};

}  // namespace hutch::sandbox::attach
