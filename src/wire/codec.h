#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

/// Writes and reads message structs through one description: `template <class C> void fields(C& c) { c(a, b);
/// }`. The decoder copies nothing and allocates nothing: strings are views into the frame's payload.
namespace hutch::wire {

/// Strings that each end with NUL, one after the other: argv or environment, usable in place.
struct StringList {
  std::string_view packed;
};

class Encoder {
 public:
  explicit Encoder(std::string& out) : out_(out) {}

  template <class... T>
  void operator()(const T&... values) {
    (put(values), ...);
  }

 private:
  template <class T>
  requires(std::is_integral_v<T> || std::is_enum_v<T>) void put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put(std::string_view text) {
    put(static_cast<uint32_t>(text.size()));
    out_.append(text);
  }
  void put(const StringList& list) { put(list.packed); }

  std::string& out_;
};

/// The same bytes as Encoder, into a buffer of the caller: for the agent, which allocates nothing.
class FixedEncoder {
 public:
  FixedEncoder(char* out, size_t capacity) : out_(out), capacity_(capacity) {}

  template <class... T>
  void operator()(const T&... values) {
    (put(values), ...);
  }

  /// Bytes written; only meaningful while ok().
  size_t size() const { return size_; }
  bool ok() const { return ok_; }

 private:
  template <class T>
  requires(std::is_integral_v<T> || std::is_enum_v<T>) void put(T value) { append(&value, sizeof value); }
  void put(std::string_view text) {
    put(static_cast<uint32_t>(text.size()));
    append(text.data(), text.size());
  }
  void put(const StringList& list) { put(list.packed); }

  void append(const void* bytes, size_t count) {
    if (!ok_ || capacity_ - size_ < count) {
      ok_ = false;
      return;
    }
    if (count > 0) std::memcpy(out_ + size_, bytes, count);
    size_ += count;
  }

  char* out_;
  size_t capacity_;
  size_t size_ = 0;
  bool ok_ = true;
};

class Decoder {
 public:
  explicit Decoder(std::string_view in) : in_(in) {}

  template <class... T>
  void operator()(T&... values) {
    (get(values), ...);
  }

  /// True when every field was there and well-formed, and nothing is left over.
  bool complete() const { return ok_ && in_.empty(); }
  /// For packed records: more to read, and no fault so far.
  bool more() const { return ok_ && !in_.empty(); }
  bool ok() const { return ok_; }

 private:
  template <class T>
  requires(std::is_integral_v<T> || std::is_enum_v<T>) void get(T& value) {
    if (!ok_ || in_.size() < sizeof value) {
      ok_ = false;
      return;
    }
    std::memcpy(&value, in_.data(), sizeof value);
    in_.remove_prefix(sizeof value);
  }
  void get(std::string_view& text) {
    uint32_t size = 0;
    get(size);
    if (!ok_ || in_.size() < size) {
      ok_ = false;
      return;
    }
    text = in_.substr(0, size);
    in_.remove_prefix(size);
  }
  void get(StringList& list) {
    get(list.packed);
    if (!list.packed.empty() && list.packed.back() != '\0') ok_ = false;
  }

  std::string_view in_;
  bool ok_ = true;
};

template <class Message>
std::string encode(const Message& message) {
  std::string out;
  Encoder encoder(out);
  const_cast<Message&>(message).fields(encoder);
  return out;
}

/// False when the payload is not exactly one Message.
template <class Message>
bool decode(std::string_view payload, Message& message) {
  Decoder decoder(payload);
  message.fields(decoder);
  return decoder.complete();
}

}  // namespace hutch::wire
