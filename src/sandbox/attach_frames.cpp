#include "sandbox/attach_frames.h"

#include <cstring>

#include "base/error.h"

namespace hutch::sandbox::attach {

std::string frame(Type type, std::string_view payload) {
  const auto size = static_cast<uint32_t>(payload.size());
  std::string bytes(1, static_cast<char>(type));
  bytes.append(reinterpret_cast<const char*>(&size), sizeof size);
  bytes.append(payload);
  return bytes;
}

std::optional<Frame> Reader::next() {
  const std::string_view rest = std::string_view(bytes_).substr(used_);
  uint32_t size = 0;
  if (rest.size() < 1 + sizeof size) return std::nullopt;
  std::memcpy(&size, rest.data() + 1, sizeof size);
  if (size > kMaxPayload) throw Error(Errc::invalid_argument, "a frame is longer than allowed");
  if (rest.size() < 1 + sizeof size + size) return std::nullopt;
  used_ += 1 + sizeof size + size;
  return Frame{static_cast<Type>(rest.front()), rest.substr(1 + sizeof size, size)};
}

}  // namespace hutch::sandbox::attach
