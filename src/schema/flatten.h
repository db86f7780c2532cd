#pragma once

#include "schema/json_writer.h"

namespace hutch::schema {

struct FlatField {
  std::string path;  // "sandbox.memory", "profiles.big.cpus"
  ordered_json value;
};

/// Visitor: every field that holds a value, one level, in the order of describe(). For listings.
class FlatWriter {
 public:
  explicit FlatWriter(std::string prefix = {}) : prefix_(std::move(prefix)) {}

  template <class T>
  void required(const char* name, T& member, std::string_view, const Rules& = {}) {
    add(prefix_ + name, member);
  }
  template <class T>
  void optional(const char* name, T& member, std::string_view, const Rules& = {}) {
    add(prefix_ + name, member);
  }

  std::vector<FlatField> take() { return std::move(fields_); }

 private:
  template <class T>
  void add(std::string path, T& member) {
    if constexpr (is_optional<T>) {
      if (member) add(std::move(path), *member);
    } else if constexpr (Described<T>) {
      FlatWriter nested(path + ".");
      member.describe(nested);
      for (FlatField& field : nested.fields_) fields_.push_back(std::move(field));
    } else if constexpr (is_map<T>) {
      for (auto& [key, value] : member) add(path + "." + key, value);
    } else {
      fields_.push_back({std::move(path), to_json(member)});
    }
  }

  std::string prefix_;
  std::vector<FlatField> fields_;
};

template <Described T>
std::vector<FlatField> flatten(const T& object) {
  FlatWriter writer;
  describe_const(object, writer);
  return writer.take();
}

}  // namespace hutch::schema
