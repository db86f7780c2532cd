#pragma once

#include "schema/json_writer.h"

namespace hutch::schema {

/// Visitor: the rows of a Markdown table `| name | type | default | meaning |`, nested fields by their path.
class MarkdownWriter {
 public:
  template <class T>
  void required(const char* name, T& member, std::string_view help, const Rules& rules = {}) {
    add(name, member, help, rules, "required");
  }
  template <class T>
  void optional(const char* name, T& member, std::string_view help, const Rules& rules = {}) {
    if constexpr (is_optional<T> || Described<T>)
      add(name, member, help, rules, "");
    else
      add(name, member, help, rules, default_text(to_json(member)));
  }

  const std::string& rows() const { return rows_; }
  /// Head and rows.
  std::string table() const;

 private:
  template <class T>
  void add(const char* name, T& member, std::string_view help, const Rules& rules,
           const std::string& fallback) {
    if constexpr (is_optional<T>) {
      typename T::value_type inner{};
      add(name, inner, help, rules, fallback);
    } else if constexpr (Described<T>) {
      nest(prefix_ + name + ".", member);
    } else if constexpr (is_map<T>) {
      add_element<typename T::mapped_type>(name, std::string(".<name>"), "map", help, rules, fallback);
    } else if constexpr (is_list<T>) {
      add_element<typename T::value_type>(name, std::string("[]"), "list", help, rules, fallback);
    } else {
      row(name, type_name(&member), help, rules, fallback);
    }
  }

  template <class E>
  void add_element(const char* name, const std::string& step, std::string_view kind, std::string_view help,
                   const Rules& rules, const std::string& fallback) {
    row(name, std::string(kind), help, rules, fallback);
    if constexpr (Described<E>) {
      E element;
      nest(prefix_ + name + step + ".", element);
    }
  }

  template <class T>
  void nest(std::string prefix, T& object) {
    MarkdownWriter nested;
    nested.prefix_ = std::move(prefix);
    object.describe(nested);
    rows_ += nested.rows_;
  }

  static std::string type_name(const bool*) { return "true/false"; }
  static std::string type_name(const int64_t*) { return "integer"; }
  static std::string type_name(const double*) { return "number"; }
  static std::string type_name(const std::string*) { return "text"; }
  static std::string type_name(const Bytes*) { return "size"; }
  static std::string default_text(const ordered_json& value);
  void row(const char* name, const std::string& type, std::string_view help, const Rules& rules,
           const std::string& fallback);

  std::string prefix_;
  std::string rows_;
};

template <Described T>
std::string markdown_table() {
  T object;
  MarkdownWriter writer;
  object.describe(writer);
  return writer.table();
}

}  // namespace hutch::schema
