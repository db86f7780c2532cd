#pragma once

#include "tools/common.h"

namespace hutch::tools {

/// A host that a sandbox was refused.
struct RefusalView {
  std::string host, reason, why;
  std::optional<std::string> rule;
  int64_t port = 0, count = 1;

  template <class V>
  void describe(V& v) {
    v.required("host", host, "What was asked for.");
    v.required("port", port, "Its port.");
    v.required("reason", reason, "no_rule, special_address, mismatch, malformed or limit.");
    v.required("why", why, "A sentence.");
    v.optional("rule", rule, "What to give sandbox_update as `allow`.");
    v.required("count", count, "How often.");
  }
};

/// Since `cursor`, see net::Egress; empty for a sandbox without a filtered network.
std::vector<RefusalView> refusal_views(const sandbox::Sandbox& sandbox, uint64_t cursor = 0);
uint64_t refusal_cursor(const sandbox::Sandbox& sandbox);

/// One line for each, and one that says how to allow what can be allowed.
std::vector<std::string> refusal_notes(const std::vector<RefusalView>& refusals);

}  // namespace hutch::tools
