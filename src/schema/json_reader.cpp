#include "schema/json_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "schema/text.h"

namespace hutch::schema {

namespace {

// Beyond this a double no longer tells neighbouring integers apart.
constexpr double kExactIntegers = 9007199254740992.0;

template <class T>
std::optional<T> number_from(const std::string* text) {
  T value{};
  if (text == nullptr) return std::nullopt;
  const char* const end = text->data() + text->size();
  const auto [rest, failure] = std::from_chars(text->data(), end, value);
  if (failure != std::errc{} || rest != end) return std::nullopt;
  return value;
}

/// A value as a person should see it in a message: short, on one line.
std::string shown(const json& value) {
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return value.is_string() ? "the text " + text : text;
}

bool is_whole(const json& value) {
  if (!value.is_number_float()) return value.is_number_integer();
  const double number = value.get<double>();
  return std::fabs(number) <= kExactIntegers && std::trunc(number) == number;
}

bool too_large(const json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX;
}

}  // namespace

std::string JsonReader::join(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
}

const json* JsonReader::find(const char* name) {
  known_.emplace_back(name);
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void JsonReader::finish() {
  for (const auto& [key, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const std::string_view near = nearest(key, known_);
    fail(join(path_, valid_utf8(key.substr(0, 100))),
         near.empty() ? std::string("is not known") : fmt::format("is not known; did you mean '{}'?", near));
  }
}

void JsonReader::read_scalar(const json& in, bool& out, const Rules&, const std::string& path) {
  const std::string* text = text_for(in);
  if (in.is_boolean())
    out = in.get<bool>();
  else if (text != nullptr && (*text == "true" || *text == "false"))
    out = *text == "true";
  else
    wrong_type(in, "true or false", path);
}

void JsonReader::read_scalar(const json& in, int64_t& out, const Rules& rules, const std::string& path) {
  if (too_large(in)) return fail(path, fmt::format("must be at most {}", INT64_MAX));
  if (const auto number = number_from<int64_t>(text_for(in)))
    out = *number;
  else if (is_whole(in))
    out = in.get<int64_t>();
  else
    return wrong_type(in, "an integer", path);
  check_number(static_cast<double>(out), rules, path);
}

void JsonReader::read_scalar(const json& in, double& out, const Rules& rules, const std::string& path) {
  if (const auto number = number_from<double>(text_for(in)); number && std::isfinite(*number))
    out = *number;
  else if (in.is_number())
    out = in.get<double>();
  else
    return wrong_type(in, "a number", path);
  check_number(out, rules, path);
}

void JsonReader::read_scalar(const json& in, std::string& out, const Rules& rules, const std::string& path) {
  if (!in.is_string()) return wrong_type(in, "a text", path);
  out = in.get_ref<const std::string&>();
  const auto length = static_cast<double>(count_characters(out));
  if (rules.min && length < *rules.min)
    fail(path,
         *rules.min == 1 ? "must not be empty" : fmt::format("must have at least {} characters", *rules.min));
  if (rules.max && length > *rules.max)
    fail(path, fmt::format("must have at most {} characters, has {}", *rules.max, length));
  if (rules.one_of.empty() || std::find(rules.one_of.begin(), rules.one_of.end(), out) != rules.one_of.end())
    return;
  const std::string_view near = nearest(out, rules.one_of);
  fail(path, fmt::format("must be one of {}, got {}{}", fmt::join(rules.one_of, ", "), shown(in),
                         near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

void JsonReader::read_scalar(const json& in, Bytes& out, const Rules& rules, const std::string& path) {
  std::optional<Bytes> size;
  if (in.is_string())
    size = parse_bytes(in.get_ref<const std::string&>());
  else if (is_whole(in) && !too_large(in) && in.get<double>() >= 0)
    size = Bytes{static_cast<uint64_t>(in.get<int64_t>())};
  if (!size) return wrong_type(in, "a size such as \"512m\", \"2g\" or a number of bytes", path);
  out = *size;
  const auto limit = [](double bytes) { return Bytes{static_cast<uint64_t>(bytes)}; };
  if (rules.min && out < limit(*rules.min))
    fail(path, fmt::format("must be at least {}, got {}", to_string(limit(*rules.min)), to_string(out)));
  if (rules.max && out > limit(*rules.max))
    fail(path, fmt::format("must be at most {}, got {}", to_string(limit(*rules.max)), to_string(out)));
}

json JsonReader::split(const json& text) {
  json out = json::array();
  std::string_view rest = text.get_ref<const std::string&>();
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    if (!item.empty()) out.push_back(item);
  }
  return out;
}

const std::string* JsonReader::text_for(const json& in) const {
  return coercion_ != Coercion::none && in.is_string() ? &in.get_ref<const std::string&>() : nullptr;
}

void JsonReader::check_number(double value, const Rules& rules, const std::string& path) {
  if (rules.min && value < *rules.min)
    fail(path, fmt::format("must be at least {}, got {}", *rules.min, value));
  if (rules.max && value > *rules.max)
    fail(path, fmt::format("must be at most {}, got {}", *rules.max, value));
}

void JsonReader::check_count(size_t count, const Rules& rules, const std::string& path) {
  const auto size = static_cast<double>(count);
  if (rules.min && size < *rules.min)
    fail(path, fmt::format("must have at least {} elements, has {}", *rules.min, count));
  if (rules.max && size > *rules.max)
    fail(path, fmt::format("must have at most {} elements, has {}", *rules.max, count));
}

void JsonReader::wrong_type(const json& in, std::string_view wanted, const std::string& path) {
  fail(path, fmt::format("must be {}, got {}", wanted, shown(in)));
}

std::string join_problems(const std::vector<Problem>& problems) {
  // A flood of problems helps nobody and would be cut by the host anyway.
  constexpr size_t kShown = 20;
  std::string out;
  for (size_t i = 0; i < std::min(problems.size(), kShown); ++i)
    out += (i == 0 ? "" : "; ") + problems[i].text();
  if (problems.size() > kShown) out += fmt::format("; and {} more", problems.size() - kShown);
  return out;
}

void throw_problems(const std::vector<Problem>& problems, const std::vector<std::string_view>& known) {
  Error error(Errc::invalid_argument, join_problems(problems));
  if (!known.empty()) error.hint(fmt::format("the arguments are {}", fmt::join(known, ", ")));
  throw error;
}

}  // namespace hutch::schema
