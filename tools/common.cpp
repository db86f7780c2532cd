#include "tools/common.h"
#include "tools/refusal_view.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace hutch::tools {

namespace {

/// Once less than a tenth of its lifetime is left.
std::string end_is_near(const sandbox::Sandbox& sandbox) {
  const auto expires_at = sandbox.expires_at();
  if (!expires_at) return {};
  const auto left = std::chrono::duration_cast<std::chrono::seconds>(*expires_at - sandbox::WallClock::now());
  const auto ttl = sandbox.about().ttl;
  if (left * 10 >= ttl) return {};
  return fmt::format("{} ends in {} s, with all its files: sandbox_update with `ttl_s` gives it more time.",
                     sandbox.id(), std::max<int64_t>(left.count(), 0));
}

/// What its caller should know beside what was asked for.
std::string news_of(const sandbox::Sandbox& sandbox, Services& services) {
  std::string news;
  for (const auto& more : {end_is_near(sandbox), sandbox.damage(), services.manager.disk_guard().reason()})
    if (!more.empty()) news += (news.empty() ? "" : " ") + more;
  return news;
}

}  // namespace

sandbox::Progress progress_of(const mcp::CallContext& context) {
  if (!context.has_progress()) return {};
  return [&context](std::string_view line) { context.progress(line); };
}

Target find_target(Services& services, const std::string& id_or_name, const mcp::CallContext& context) {
  if (!id_or_name.empty()) {
    Target target{.sandbox = services.manager.find(id_or_name), .note = {}};
    target.note = news_of(*target.sandbox, services);
    target.refusals_before = refusal_cursor(*target.sandbox);
    return target;
  }
  auto found = services.manager.default_sandbox(progress_of(context), context.stop());
  Target target{.sandbox = std::move(found.sandbox), .note = {}};
  target.note = news_of(*target.sandbox, services);
  target.refusals_before = refusal_cursor(*target.sandbox);
  if (found.fresh)
    target.note = found.previous_cause.empty()
                      ? fmt::format("{} is new: this server's default sandbox, for calls without sandbox_id.",
                                    target.sandbox->id())
                      : fmt::format("{} is a new default sandbox without earlier files ({}).",
                                    target.sandbox->id(), found.previous_cause);
  return target;
}

std::string in_words(std::chrono::milliseconds duration) {
  const auto ms = duration.count();
  if (ms < 1000) return fmt::format("{} ms", ms);
  if (ms < 120'000) return fmt::format("{:.2f} s", static_cast<double>(ms) / 1000);
  return fmt::format("{} min {} s", ms / 60'000, ms % 60'000 / 1000);
}

std::string size_in_words(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  double value = static_cast<double>(bytes);
  const char* const units[] = {"kB", "MB", "GB", "TB"};
  size_t unit = 0;
  for (value /= 1024; value >= 1024 && unit < 3; ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

std::string iso_time(sandbox::WallClock::time_point when) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(sandbox::WallClock::to_time_t(when)));
}

std::string signal_name(int number) {
  const char* name = ::sigabbrev_np(number);
  return name != nullptr ? fmt::format("SIG{}", name) : fmt::format("signal {}", number);
}

void add_line(std::string& text, std::string_view line) {
  if (line.empty()) return;
  if (!text.empty() && text.back() != '\n') text += '\n';
  text += line;
  text += '\n';
}

}  // namespace hutch::tools
