#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/host_name.h"

/// What sandboxes may reach.
namespace hutch::net {

/// One of
///
///     example.com        that name            10.1.0.0/16, 203.0.113.7   addresses
///     *.example.com      names below it       [2001:db8::1], 2001:db8::/32
///     *                  every name
///
/// each with `:port`, or `:*` for every port; without, the ports 80 and 443. Names alone never reach special
/// addresses (private, loopback, ...): for those the address must be allowed as well, by a rule that is no
/// wider than their range.
struct Rule {
  std::string name;         // in normal form; empty when it is about addresses
  bool subdomains = false;  // of `name`; of everything when that is empty
  std::optional<Cidr> cidr;
  std::optional<uint16_t> port;
  bool any_port = false;

  bool allows_port(uint16_t wanted) const;
  bool allows_name(std::string_view normal_name, uint16_t wanted_port) const;
  bool allows_address(const Address& address, uint16_t wanted_port) const;
  std::string to_string() const;
};

/// Throws Error(invalid_argument) that says how rules are written.
Rule parse_rule(std::string_view text);

using Presets = std::map<std::string, std::vector<std::string>>;

/// Lists of hosts under a name: pypi, npm, github, debian, ...
const Presets& builtin_presets();

/// Throws Error(invalid_argument) when a name is none (a-z, 0-9, - and _) or an entry is no rule.
void check_presets(const Presets& presets);

/// The rules of one sandbox; never changed once made.
class RuleSet {
 public:
  RuleSet() = default;
  /// `texts` are rules or names of presets, `pypi` or `@pypi`; presets given here win over built-in ones, and
  /// their entries are rules. Throws Error(invalid_argument) that names every text that is wrong.
  explicit RuleSet(const std::vector<std::string>& texts, const Presets& presets = {});

  bool allows_name(std::string_view normal_name, uint16_t port) const;
  /// Public ones by any rule that holds them, special ones only by one that means them.
  bool allows_address(const Address& address, uint16_t port) const;
  /// As they were given.
  const std::vector<std::string>& texts() const { return texts_; }

 private:
  std::vector<std::string> texts_;
  std::vector<Rule> rules_;
};

/// Whether it is a rule about addresses of which some are special, or a preset with one; what is neither is
/// not.
bool names_special_addresses(const std::string& text, const Presets& presets = {});

/// The shortest rule that allows a host at a port.
std::string rule_for(const Host& host, uint16_t port);

}  // namespace hutch::net
