#include "net/egress.h"

#include <fmt/format.h>

#include <algorithm>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

namespace hutch::net {

namespace {

constexpr size_t kMaxRefusals = 256;
/// So much may go through at once before the bandwidth is felt.
constexpr std::chrono::milliseconds kBurst{200};

bool same_kind(const Refusal& a, const Refusal& b) {
  return a.host == b.host && a.port == b.port && a.why == b.why;
}

}  // namespace

std::string_view reason_name(Refusal::Reason reason) {
  switch (reason) {
    case Refusal::Reason::no_rule:
      return "no_rule";
    case Refusal::Reason::special:
      return "special_address";
    case Refusal::Reason::mismatch:
      return "mismatch";
    case Refusal::Reason::malformed:
      return "malformed";
    case Refusal::Reason::limit:
      return "limit";
    case Refusal::Reason::unreachable:
      return "unreachable";
  }
  return "unknown";
}

std::string refusal_text(const Refusal& refusal) {
  std::string out = "refused: " + refusal.why;
  if (refusal.rule.empty()) return out;
  const std::string in_profile = fmt::format("`allow: [\"{}\"]` in the profile", refusal.rule);
  if (!refusal.callers_may) return out + "\nthe configuration alone can allow it: " + in_profile;
  return out +
         fmt::format("\nto allow it: sandbox_update with allow: [\"{}\"], or {}", refusal.rule, in_profile);
}

EgressLimits limits_of(const config::Egress& settings) {
  return {.connect_timeout = std::chrono::seconds(settings.connect_timeout_s),
          .max_connections = static_cast<size_t>(settings.max_connections),
          .bytes_per_second = static_cast<uint64_t>(settings.bandwidth.value),
          .max_bytes = static_cast<uint64_t>(settings.max_bytes.value)};
}

Egress::Egress(RuleSet rules, EgressLimits limits, EgressHooks hooks,
               std::shared_ptr<const UpstreamProxy> upstream_proxy)
    : limits_(limits),
      hooks_(std::move(hooks)),
      upstream_proxy_(std::move(upstream_proxy)),
      rules_(std::make_shared<const RuleSet>(std::move(rules))) {}

void Egress::set_rules(RuleSet rules) {
  auto made = std::make_shared<const RuleSet>(std::move(rules));
  const std::lock_guard lock(mutex_);
  rules_.swap(made);
}

std::shared_ptr<const RuleSet> Egress::rules() const {
  const std::lock_guard lock(mutex_);
  return rules_;
}

uint64_t Egress::cursor() const {
  const std::lock_guard lock(mutex_);
  return last_refusal_;
}

std::vector<Refusal> Egress::refusals_since(uint64_t cursor) const {
  std::vector<Refusal> out;
  const std::lock_guard lock(mutex_);
  for (const Refusal& refusal : refusals_) {
    if (refusal.number <= cursor) continue;
    const auto known = std::ranges::find_if(out, [&](const Refusal& r) { return same_kind(r, refusal); });
    if (known == out.end())
      out.push_back(refusal);
    else
      ++known->count;
  }
  return out;
}

Egress::Usage Egress::usage() const {
  return {.connections = connections_, .allowed = allowed_, .refused = refused_, .bytes = bytes_};
}

void Egress::remember(std::string_view protocol, Refusal& refusal) {
  refusal.time = std::chrono::system_clock::now();
  refusal.callers_may = !hooks_.callers_may_add || hooks_.callers_may_add(refusal.rule);
  {
    const std::lock_guard lock(mutex_);
    refusal.number = ++last_refusal_;
    refusals_.push_back(refusal);
    if (refusals_.size() > kMaxRefusals) refusals_.pop_front();
  }
  if (hooks_.audit)
    hooks_.audit({.protocol = protocol, .host = refusal.host, .port = refusal.port, .why = refusal.why});
}

Refused Egress::refuse(std::string_view protocol, Refusal refusal) {
  ++refused_;
  remember(protocol, refusal);
  return Refused(std::move(refusal));
}

void Egress::failed(std::string_view protocol, const HostPort& target, const Error& error) {
  Refusal failure{.host = target.host.to_string(),
                  .port = target.port,
                  .reason = Refusal::Reason::unreachable,
                  .why = fmt::format("{} was not reached: {}", target.to_string(), error.what())};
  remember(protocol, failure);
}

void Egress::allowed(std::string_view protocol, const HostPort& target, const std::string& address) {
  ++allowed_;
  if (hooks_.audit)
    hooks_.audit({.allowed = true,
                  .protocol = protocol,
                  .host = target.host.to_string(),
                  .port = target.port,
                  .address = address});
}

bool Egress::used_up() const {
  return limits_.max_bytes != 0 && bytes_ >= limits_.max_bytes;
}

std::chrono::nanoseconds Egress::spend(size_t bytes) {
  bytes_ += bytes;
  if (limits_.bytes_per_second == 0) return {};
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::duration<double> price(static_cast<double>(bytes) /
                                            static_cast<double>(limits_.bytes_per_second));
  paid_until_ = std::max(paid_until_, now) + std::chrono::duration_cast<std::chrono::nanoseconds>(price);
  return std::max<std::chrono::nanoseconds>(paid_until_ - now - kBurst, {});
}

asio::awaitable<void> Metered::account(size_t bytes) {
  const auto wait = egress_->spend(bytes);
  if (egress_->used_up()) {
    close();
    throw egress_->refuse("limit", {.host = "",
                                    .reason = Refusal::Reason::limit,
                                    .why = fmt::format("the sandbox has used its {} bytes of network "
                                                       "(egress.max_bytes)",
                                                       egress_->limits().max_bytes)});
  }
  if (wait.count() == 0) co_return;
  asio::steady_timer timer(rest_.executor(), wait);
  asio::error_code cancelled;  // then what was read must not be lost
  co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
}

asio::awaitable<std::string_view> Metered::read() {
  const std::string_view bytes = co_await rest_.read();
  if (!bytes.empty()) co_await account(bytes.size());
  co_return bytes;
}

asio::awaitable<void> Metered::write(std::string_view bytes) {
  co_await account(bytes.size());
  co_await rest_.write(bytes);
}

}  // namespace hutch::net
