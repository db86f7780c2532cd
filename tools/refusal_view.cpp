#include "tools/refusal_view.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace hutch::tools {

namespace {

constexpr size_t kMostNotes = 8;

/// A rule is missing that callers may not give.
bool is_for_the_profile(const RefusalView& refusal) {
  return !refusal.rule && (refusal.reason == "no_rule" || refusal.reason == "special_address");
}

}  // namespace

std::vector<RefusalView> refusal_views(const sandbox::Sandbox& sandbox, uint64_t cursor) {
  std::vector<RefusalView> out;
  const auto egress = sandbox.egress();
  if (!egress) return out;
  for (const net::Refusal& refusal : egress->refusals_since(cursor)) {
    RefusalView view{
        .host = refusal.host, .reason = std::string(net::reason_name(refusal.reason)), .why = refusal.why};
    if (!refusal.rule.empty() && refusal.callers_may) view.rule = refusal.rule;
    view.port = refusal.port;
    view.count = static_cast<int64_t>(refusal.count);
    out.push_back(std::move(view));
  }
  return out;
}

uint64_t refusal_cursor(const sandbox::Sandbox& sandbox) {
  const auto egress = sandbox.egress();
  return egress ? egress->cursor() : 0;
}

std::vector<std::string> refusal_notes(const std::vector<RefusalView>& refusals) {
  std::vector<std::string> notes, rules;
  for (const auto& refusal : refusals) {
    if (refusal.rule && std::ranges::find(rules, *refusal.rule) == rules.end())
      rules.push_back(*refusal.rule);
    if (notes.size() < kMostNotes)
      notes.push_back(fmt::format("Network: {}{}", refusal.why,
                                  refusal.count > 1 ? fmt::format(" ({} times)", refusal.count) : ""));
  }
  if (refusals.size() > kMostNotes)
    notes.push_back(
        fmt::format("Network: {} more were refused: sandbox_info lists them.", refusals.size() - kMostNotes));
  if (std::ranges::any_of(refusals, is_for_the_profile))
    notes.push_back(
        "Not every host can be allowed from here: the configuration can, by `allow` of the profile.");
  if (rules.size() > kMostNotes) rules.resize(kMostNotes);
  if (!rules.empty())
    notes.push_back(fmt::format("If that is wanted: sandbox_update with allow: [\"{}\"], then again.",
                                fmt::join(rules, "\", \"")));
  return notes;
}

}  // namespace hutch::tools
