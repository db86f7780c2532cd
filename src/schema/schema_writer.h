#pragma once

#include "schema/json_writer.h"

namespace hutch::schema {

/// Visitor: JSON Schema with a root object, no unknown properties, and none of `oneOf`, `anyOf`, `$ref`,
/// type lists or `format`: the subset that every host and model API takes.
class SchemaWriter {
 public:
  /// A result is described by the same struct as an argument, but has no defaults, and none of its fields is
  /// required, because an error result has none of them.
  enum class Purpose { arguments, result };

  explicit SchemaWriter(Purpose purpose = Purpose::arguments) : purpose_(purpose) {}

  template <class T>
  void required(const char* name, T& member, std::string_view help, const Rules& rules = {}) {
    properties_[name] = value_schema(member, help, rules);
    required_.push_back(name);
  }

  /// The default is shown unless it is empty: an empty text, list or object says what "left out" says.
  template <class T>
  void optional(const char* name, T& member, std::string_view help, const Rules& rules = {}) {
    ordered_json& property = properties_[name] = value_schema(member, help, rules);
    if constexpr (!is_optional<T> && !Described<T>) {
      ordered_json value = to_json(member);
      const bool empty = value.empty() || (value.is_string() && value.get_ref<const std::string&>().empty());
      if (purpose_ == Purpose::arguments && !empty) property["default"] = std::move(value);
    }
  }

  ordered_json finish() const;

 private:
  template <class T>
  ordered_json value_schema(T& value, std::string_view help, const Rules& rules) const {
    if constexpr (is_optional<T>) {
      typename T::value_type inner{};
      return value_schema(inner, help, rules);
    } else if constexpr (Described<T>) {
      SchemaWriter nested(purpose_);
      nested.top_ = false;
      value.describe(nested);
      return with_help(nested.finish(), help);
    } else if constexpr (is_list<T>) {
      typename T::value_type element{};
      return container_schema(true, value_schema(element, {}, {.one_of = rules.one_of}), help, rules);
    } else if constexpr (is_map<T>) {
      typename T::mapped_type element{};
      return container_schema(false, value_schema(element, {}, {.one_of = rules.one_of}), help, rules);
    } else {
      static_assert(Scalar<T>, "this member type has no JSON Schema");
      return scalar_schema(static_cast<const T*>(nullptr), help, rules);
    }
  }

  static ordered_json scalar_schema(const bool*, std::string_view help, const Rules& rules);
  static ordered_json scalar_schema(const int64_t*, std::string_view help, const Rules& rules);
  static ordered_json scalar_schema(const double*, std::string_view help, const Rules& rules);
  static ordered_json scalar_schema(const std::string*, std::string_view help, const Rules& rules);
  static ordered_json scalar_schema(const Bytes*, std::string_view help, const Rules& rules);
  static ordered_json container_schema(bool list, ordered_json element, std::string_view help,
                                       const Rules& rules);
  static ordered_json with_help(ordered_json schema, std::string_view help);

  Purpose purpose_;
  bool top_ = true;
  ordered_json properties_ = ordered_json::object();
  std::vector<std::string> required_;
};

template <Described T>
ordered_json schema_of(SchemaWriter::Purpose purpose = SchemaWriter::Purpose::arguments) {
  T object;
  SchemaWriter writer(purpose);
  object.describe(writer);
  return writer.finish();
}

}  // namespace hutch::schema
