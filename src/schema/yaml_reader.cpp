#include "schema/yaml_reader.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <set>

namespace hutch::schema {

namespace {

// Aliases can make a small file expand without end.
constexpr size_t kMaxNodes = 100'000;

bool is_decimal(std::string_view text) {
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
  return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
}

bool has_leading_zero(std::string_view text) {
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
  return text.size() > 1 && text.front() == '0';
}

std::optional<double> fraction(std::string_view text) {
  double value = 0;
  const auto [rest, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool looks_like_number = text.find_first_not_of("+-.0123456789eE") == text.npos;
  if (!looks_like_number || failure != std::errc{} || rest != text.data() + text.size()) return std::nullopt;
  return value;
}

class Converter {
 public:
  explicit Converter(YamlDocument& document) : document_(document) {}

  json convert(const YAML::Node& node, const std::string& path) {
    if (++nodes_ > kMaxNodes)
      throw Error(Errc::limit_exceeded, fmt::format("more than {} values", kMaxNodes));
    switch (node.Type()) {
      case YAML::NodeType::Map:
        return map(node, path);
      case YAML::NodeType::Sequence:
        return list(node, path);
      case YAML::NodeType::Scalar:
        return scalar(node, path);
      default:
        return nullptr;
    }
  }

 private:
  void mark(const YAML::Node& node, const std::string& path) {
    document_.places[path] = {node.Mark().line + 1, node.Mark().column + 1};
  }

  json map(const YAML::Node& node, const std::string& path) {
    json out = json::object();
    for (const auto& entry : node) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "?";
      const std::string inner = JsonReader::join(path, key);
      if (out.contains(key))
        document_.problems.push_back(
            {inner, fmt::format("is given twice, first in line {}", line_of(inner))});
      mark(entry.first, inner);
      out[key] = convert(entry.second, inner);
    }
    return out;
  }

  json list(const YAML::Node& node, const std::string& path) {
    json out = json::array();
    for (const auto& element : node) {
      const std::string inner = fmt::format("{}[{}]", path, out.size());
      mark(element, inner);
      out.push_back(convert(element, inner));
    }
    return out;
  }

  json scalar(const YAML::Node& node, const std::string& path) {
    const std::string& text = node.Scalar();
    const bool plain = node.Tag() == "?" || node.Tag().empty();
    if (!plain) return text;  // quoted, a block, or tagged
    if (text == "true" || text == "false") return text == "true";
    if (text.empty() || text == "~" || text == "null") return nullptr;
    if (!is_decimal(text)) {
      if (const auto value = fraction(text)) return *value;
      return text;
    }
    if (has_leading_zero(text)) {
      document_.problems.push_back(
          {path,
           fmt::format("is {}: YAML reads a leading zero as octal; write it without, or in quotes", text)});
      return nullptr;
    }
    json number = json::parse(text.front() == '+' ? text.substr(1) : text, nullptr, false);
    return number.is_number() ? number : json(text);
  }

  int line_of(const std::string& path) const { return document_.places.at(path).line; }

  YamlDocument& document_;
  size_t nodes_ = 0;
};

}  // namespace

std::string YamlDocument::place(const std::string& file, const std::string& path) const {
  for (std::string outer = path;;) {
    const auto it = places.find(outer);
    if (it != places.end()) return fmt::format("{}:{}:{}", file, it->second.line, it->second.column);
    const size_t cut = outer.find_last_of(".[");
    if (cut == outer.npos) return file;
    outer.resize(cut);
  }
}

YamlDocument parse_yaml(const std::string& text, const std::string& file) {
  YamlDocument document;
  try {
    const std::vector<YAML::Node> all = YAML::LoadAll(text);
    if (all.size() > 1)
      throw Error(Errc::invalid_argument,
                  fmt::format("{}: holds {} YAML documents, one is read", file, all.size()))
          .hint("remove the lines that begin with ---");
    if (all.empty() || all.front().IsNull()) return document;
    if (!all.front().IsMap())
      throw Error(Errc::invalid_argument, fmt::format("{}:1:1: must be `key: value` lines", file));
    document.root = Converter(document).convert(all.front(), "");
  } catch (const YAML::Exception& e) {
    const bool placed = !e.mark.is_null();
    throw Error(Errc::invalid_argument,
                placed ? fmt::format("{}:{}:{}: {}", file, e.mark.line + 1, e.mark.column + 1, e.msg)
                       : fmt::format("{}: {}", file, e.msg));
  }
  return document;
}

void throw_yaml_problems(const YamlDocument& document, const std::string& file,
                         const std::vector<Problem>& problems) {
  std::string text;
  std::set<std::string_view> told;  // one message a field: what follows from the first only confuses
  for (const Problem& problem : problems)
    if (told.insert(problem.path).second)
      text += fmt::format("{}{}: {}", text.empty() ? "" : "\n", document.place(file, problem.path),
                          problem.text());
  throw Error(Errc::invalid_argument, text);
}

}  // namespace hutch::schema
