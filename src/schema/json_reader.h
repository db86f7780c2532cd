#pragma once

#include "base/error.h"
#include "schema/describe.h"
#include "schema/json.h"

namespace hutch::schema {

/// One thing that is wrong. Shown as `'edits[1].old_str' is missing`.
struct Problem {
  std::string path;
  std::string what;

  std::string text() const { return path.empty() ? what : "'" + path + "' " + what; }
};

/// What may stand for a value of another type.
enum class Coercion {
  none,       // configuration files: exactly the type
  scalars,    // arguments from a model: "5" for 5 and "true" for true, not the other way round
  from_text,  // environment variables: as scalars, and "a,b" for a list
};

/// Visitor: fills the struct from a JSON object and collects every problem instead of stopping at the first.
/// A null counts as not given. Members whose key is absent keep their value, so that sources can be layered.
class JsonReader {
 public:
  JsonReader(const json& object, std::string path, Coercion coercion, std::vector<Problem>& problems)
      : object_(object), path_(std::move(path)), coercion_(coercion), problems_(problems) {}

  template <class T>
  void required(const char* name, T& member, std::string_view, const Rules& rules = {}) {
    if (const json* value = find(name))
      read(*value, member, rules, join(path_, name));
    else
      problems_.push_back({join(path_, name), "is missing"});
  }

  template <class T>
  void optional(const char* name, T& member, std::string_view, const Rules& rules = {}) {
    if (const json* value = find(name)) read(*value, member, rules, join(path_, name));
  }

  /// Call after describe(): reports keys that nothing asked for, with the nearest known one.
  void finish();

  /// The names that were asked for, in order.
  const std::vector<std::string_view>& known() const { return known_; }

  static std::string join(const std::string& path, std::string_view name);

 private:
  const json* find(const char* name);

  template <class T>
  void read(const json& in, T& out, const Rules& rules, const std::string& path) {
    if constexpr (is_optional<T>) {
      if (!out) out.emplace();
      read(in, *out, rules, path);
    } else if constexpr (Described<T>) {
      if (!in.is_object()) return wrong_type(in, "an object", path);
      JsonReader nested(in, path, coercion_, problems_);
      out.describe(nested);
      nested.finish();
    } else if constexpr (is_list<T>) {
      read_list(in, out, rules, path);
    } else if constexpr (is_map<T>) {
      if (!in.is_object()) return wrong_type(in, "an object", path);
      for (const auto& [key, value] : in.items())
        read(value, out[key], {.one_of = rules.one_of}, join(path, key));
      check_count(out.size(), rules, path);
    } else {
      static_assert(Scalar<T>, "this member type cannot be read from JSON");
      read_scalar(in, out, rules, path);
    }
  }

  template <class T>
  void read_list(const json& in, std::vector<T>& out, const Rules& rules, const std::string& path) {
    out.clear();
    const json elements = coercion_ == Coercion::from_text && in.is_string() ? split(in) : json();
    const json& list = elements.is_array() ? elements : in;
    if (!list.is_array()) return wrong_type(in, "a list", path);
    check_count(list.size(), rules, path);
    for (size_t i = 0; i < list.size(); ++i)
      read(list[i], out.emplace_back(), {.one_of = rules.one_of}, path + "[" + std::to_string(i) + "]");
  }

  void read_scalar(const json& in, bool& out, const Rules& rules, const std::string& path);
  void read_scalar(const json& in, int64_t& out, const Rules& rules, const std::string& path);
  void read_scalar(const json& in, double& out, const Rules& rules, const std::string& path);
  void read_scalar(const json& in, std::string& out, const Rules& rules, const std::string& path);
  void read_scalar(const json& in, Bytes& out, const Rules& rules, const std::string& path);

  static json split(const json& text);
  /// The value as text when coercion allows to look into a text, nothing otherwise.
  const std::string* text_for(const json& in) const;
  void check_number(double value, const Rules& rules, const std::string& path);
  void check_count(size_t count, const Rules& rules, const std::string& path);
  void wrong_type(const json& in, std::string_view wanted, const std::string& path);
  void fail(const std::string& path, std::string what) { problems_.push_back({path, std::move(what)}); }

  const json& object_;
  std::string path_;
  Coercion coercion_;
  std::vector<Problem>& problems_;
  std::vector<std::string_view> known_;
};

/// "'command' is missing; 'colour' is not known": all problems in one line.
std::string join_problems(const std::vector<Problem>& problems);

[[noreturn]] void throw_problems(const std::vector<Problem>& problems,
                                 const std::vector<std::string_view>& known);

/// Arguments of one call. Throws one Error(invalid_argument) that names every problem; the hint lists the
/// arguments there are.
template <Described T>
T parse_arguments(const json& arguments) {
  T out;
  std::vector<Problem> problems;
  if (!arguments.is_object()) {
    problems.push_back({"", std::string("arguments must be an object, got ") + arguments.type_name()});
    throw_problems(problems, {});
  }
  JsonReader reader(arguments, "", Coercion::scalars, problems);
  out.describe(reader);
  reader.finish();
  if (!problems.empty()) throw_problems(problems, reader.known());
  return out;
}

}  // namespace hutch::schema
