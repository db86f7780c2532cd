#include "net/rule.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "schema/text.h"

namespace hutch::net {

namespace {

constexpr bool is_web_port(uint16_t port) {
  return port == 80 || port == 443;
}

Error bad_rule(std::string_view text, std::string_view why) {
  return Error(Errc::invalid_argument, fmt::format("'{}' is no rule: {}", printable(text), why))
      .hint(
          "write `name`, `*.name`, `name:port`, `10.0.0.0/8` or `[2001:db8::1]:port`, `:*` for every port, "
          "or "
          "the name of a preset");
}

/// Whether a second colon says that this is IPv6 without brackets, where no port can follow.
bool is_bare_v6(std::string_view text) {
  return !text.starts_with('[') && std::ranges::count(text, ':') > 1;
}

/// Takes the port from the end.
void take_port(std::string_view& text, std::string_view whole, Rule& rule) {
  const size_t bracket = text.rfind(']');
  const size_t colon = text.rfind(':');
  if (is_bare_v6(text) || colon == text.npos || (bracket != text.npos && colon < bracket)) return;
  const std::string_view port = text.substr(colon + 1);
  text = text.substr(0, colon);
  if (port == "*") {
    rule.any_port = true;
    return;
  }
  rule.port = parse_port(port);
  if (!rule.port) throw bad_rule(whole, "behind the ':' belongs a port from 1 to 65535, or *");
}

/// "[2001:db8::]/32" and "[2001:db8::/32]" are both written.
std::string without_brackets(std::string_view text) {
  std::string out(text);
  if (!out.starts_with('[')) return out;
  out.erase(0, 1);
  if (const size_t close = out.find(']'); close != out.npos) out.erase(close, 1);
  return out;
}

void expand(const std::string& text, const Presets& presets, std::vector<Rule>& rules) {
  const bool marked = text.starts_with('@');
  const std::string name = marked ? text.substr(1) : text;
  const Presets& builtin = builtin_presets();
  const auto given = presets.find(name), usual = builtin.find(name);
  if (given == presets.end() && usual == builtin.end()) {
    if (!marked) return rules.push_back(parse_rule(text));
    std::vector<std::string_view> names;
    for (const Presets* from : {&presets, &builtin})
      for (const auto& [known, entries] : *from) names.push_back(known);
    const std::string_view near = schema::nearest(name, names);
    throw Error(Errc::invalid_argument, fmt::format("there is no preset '{}'", printable(name)))
        .hint(near.empty() ? fmt::format("one of `{}`", fmt::join(names, "`, `"))
                           : fmt::format("did you mean `{}`?", near));
  }
  for (const std::string& entry : given != presets.end() ? given->second : usual->second)
    rules.push_back(parse_rule(entry));
}

}  // namespace

bool Rule::allows_port(uint16_t wanted) const {
  return any_port || (port ? *port == wanted : is_web_port(wanted));
}

bool Rule::allows_name(std::string_view wanted, uint16_t wanted_port) const {
  if (cidr || wanted.empty() || !allows_port(wanted_port)) return false;
  if (!subdomains) return wanted == name;
  if (name.empty()) return true;
  // The dot belongs to it: evilexample.com is not below example.com.
  return wanted.size() > name.size() + 1 && wanted.ends_with(name) &&
         wanted[wanted.size() - name.size() - 1] == '.';
}

bool Rule::allows_address(const Address& address, uint16_t wanted_port) const {
  if (!cidr || !allows_port(wanted_port) || !cidr->contains(address)) return false;
  const auto special = special_range(address);
  return !special || cidr->prefix >= special->prefix;
}

std::string Rule::to_string() const {
  std::string out = subdomains ? (name.empty() ? "*" : "*." + name) : name;
  const bool bracketed = cidr && cidr->base.is_v6();
  if (cidr) out = bracketed ? fmt::format("[{}]", cidr->to_string()) : cidr->to_string();
  if (any_port) out += ":*";
  if (port) out += fmt::format(":{}", *port);
  return out;
}

Rule parse_rule(std::string_view text) {
  if (text.find("://") != text.npos) throw bad_rule(text, "it is a URL; rules are about hosts and ports");
  Rule rule;
  std::string_view rest = text;
  take_port(rest, text, rule);
  try {
    if ((rule.cidr = parse_cidr(without_brackets(rest)))) return rule;
    if (rest.find('/') != rest.npos)
      throw bad_rule(text, "it has a '/' and is no network such as 10.0.0.0/8");
    if (rest == "*" || rest.starts_with("*.")) {
      rule.subdomains = true;
      rest.remove_prefix(1);
      if (!rest.empty()) rest.remove_prefix(1);
      if (rest.empty() && text.starts_with("*.")) throw bad_rule(text, "a name is missing behind '*.'");
    }
    if (!rest.empty() || !rule.subdomains) rule.name = normal_name(rest);
  } catch (const Error& error) {
    if (!error.hint().empty()) throw;
    throw bad_rule(text, error.what());
  }
  return rule;
}

const Presets& builtin_presets() {
  static const Presets presets = {
      {"alpine", {"dl-cdn.alpinelinux.org"}},
      {"conda", {"conda.anaconda.org", "repo.anaconda.com"}},
      {"crates", {"crates.io", "*.crates.io", "static.rust-lang.org"}},
      {"debian", {"*.debian.org"}},
      {"github", {"github.com", "*.github.com", "*.githubusercontent.com"}},
      {"gitlab", {"gitlab.com"}},
      {"go", {"proxy.golang.org", "sum.golang.org", "go.dev", "dl.google.com"}},
      {"huggingface", {"huggingface.co", "*.huggingface.co", "*.hf.co"}},
      {"maven", {"repo.maven.apache.org", "repo1.maven.org"}},
      {"npm", {"npmjs.org", "*.npmjs.org", "npmjs.com", "*.npmjs.com"}},
      {"nuget", {"*.nuget.org"}},
      {"pypi", {"pypi.org", "files.pythonhosted.org"}},
      {"rubygems", {"rubygems.org", "*.rubygems.org"}},
      {"ubuntu", {"*.ubuntu.com"}},
  };
  return presets;
}

void check_presets(const Presets& presets) {
  for (const auto& [name, entries] : presets) {
    if (name.empty() || name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_") != name.npos)
      throw Error(Errc::invalid_argument, fmt::format("'{}' is no name for a preset", printable(name)))
          .hint("take a-z, 0-9, - and _ for the names below `egress.presets`");
    during("reading egress.presets." + name, [&, &rules = entries] {
      for (const std::string& rule : rules) (void)parse_rule(rule);
    });
  }
}

RuleSet::RuleSet(const std::vector<std::string>& texts, const Presets& presets) : texts_(texts) {
  std::string problems, hint;
  for (const std::string& text : texts) try {
      expand(text, presets, rules_);
    } catch (const Error& error) {
      problems += (problems.empty() ? "" : "; ") + std::string(error.what());
      hint = error.hint();
    }
  if (!problems.empty()) throw Error(Errc::invalid_argument, problems).hint(hint);
}

bool RuleSet::allows_name(std::string_view name, uint16_t port) const {
  return std::ranges::any_of(rules_, [&](const Rule& rule) { return rule.allows_name(name, port); });
}

bool RuleSet::allows_address(const Address& address, uint16_t port) const {
  return std::ranges::any_of(rules_, [&](const Rule& rule) { return rule.allows_address(address, port); });
}

bool names_special_addresses(const std::string& text, const Presets& presets) {
  try {
    std::vector<Rule> rules;
    expand(text, presets, rules);
    return std::ranges::any_of(
        rules, [](const Rule& rule) { return rule.cidr && lie_in_special_range(*rule.cidr); });
  } catch (const Error&) {
    return false;
  }
}

std::string rule_for(const Host& host, uint16_t port) {
  return is_web_port(port) ? host.to_string() : fmt::format("{}:{}", host.to_string(), port);
}

}  // namespace hutch::net
