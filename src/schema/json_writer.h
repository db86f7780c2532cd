#pragma once

#include "schema/describe.h"
#include "schema/json.h"
#include "schema/text.h"

namespace hutch::schema {

/// Never throws on content: invalid UTF-8 is replaced, an infinite number becomes null.
inline ordered_json to_json(bool value) {
  return value;
}
inline ordered_json to_json(int64_t value) {
  return value;
}
/// A whole number without ".0".
ordered_json to_json(double value);
inline ordered_json to_json(const std::string& value) {
  return valid_utf8(value);
}
inline ordered_json to_json(Bytes value) {
  return to_string(value);
}
template <Described T>
ordered_json to_json(const T& object);

template <class T>
ordered_json to_json(const std::vector<T>& list) {
  ordered_json out = ordered_json::array();
  for (const T& element : list) out.push_back(to_json(element));
  return out;
}

template <class T>
ordered_json to_json(const std::map<std::string, T>& map) {
  ordered_json out = ordered_json::object();
  for (const auto& [key, value] : map) out[valid_utf8(key)] = to_json(value);
  return out;
}

/// Visitor: the struct as a JSON object, fields in the order of describe(), absent optionals left out.
class JsonWriter {
 public:
  template <class T>
  void required(const char* name, const T& member, std::string_view, const Rules& = {}) {
    write(name, member);
  }
  template <class T>
  void optional(const char* name, const T& member, std::string_view, const Rules& = {}) {
    write(name, member);
  }

  ordered_json take() { return std::move(out_); }

 private:
  template <class T>
  void write(const char* name, const T& member) {
    if constexpr (is_optional<T>) {
      if (member) out_[name] = to_json(*member);
    } else {
      out_[name] = to_json(member);
    }
  }

  ordered_json out_ = ordered_json::object();
};

template <Described T>
ordered_json to_json(const T& object) {
  JsonWriter writer;
  describe_const(object, writer);
  return writer.take();
}

}  // namespace hutch::schema
