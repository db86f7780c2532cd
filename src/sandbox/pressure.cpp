#include "sandbox/pressure.h"

#include <fmt/format.h>

#include <algorithm>

namespace hutch::sandbox {

namespace {

double percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? 100 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

uint64_t left(uint64_t limit, uint64_t used) {
  return limit - std::min(limit, used);
}

PressureLevel above(PressureLevel level) {
  return level == PressureLevel::emergency ? level : static_cast<PressureLevel>(static_cast<int>(level) + 1);
}

/// Whether the group is nearer to its end than the host.
bool group_decides(const PressureFigures& f) {
  return f.group_limit_bytes && f.group_used_bytes &&
         percent(left(*f.group_limit_bytes, *f.group_used_bytes), *f.group_limit_bytes) <
             percent(f.available_bytes, f.total_bytes);
}

}  // namespace

std::string_view name_of(PressureLevel level) {
  constexpr std::array<std::string_view, 5> names = {"normal", "warning", "high", "critical", "emergency"};
  return names.at(static_cast<size_t>(level));
}

uint64_t PressureFigures::free_bytes() const {
  uint64_t bytes = available_bytes;
  if (group_limit_bytes && group_used_bytes)
    bytes = std::min(bytes, left(*group_limit_bytes, *group_used_bytes));
  return bytes;
}

double PressureFigures::free_percent() const {
  const double of_host = percent(available_bytes, total_bytes);
  if (!group_decides(*this)) return of_host;
  return percent(left(*group_limit_bytes, *group_used_bytes), *group_limit_bytes);
}

std::string PressureFigures::text() const {
  const bool group = group_decides(*this);
  const uint64_t whole = group ? *group_limit_bytes : total_bytes;
  const uint64_t part = group ? left(*group_limit_bytes, *group_used_bytes) : available_bytes;
  return fmt::format("{} MB of {}{} MB are available ({:.0f} %)", part >> 20, group ? "its group's " : "",
                     whole >> 20, free_percent());
}

const PressureBand& PressureGauge::band(PressureLevel level) const {
  switch (level) {
    case PressureLevel::emergency:
      return bands_.emergency;
    case PressureLevel::critical:
      return bands_.critical;
    case PressureLevel::high:
      return bands_.high;
    default:
      return bands_.warning;
  }
}

/// The highest level whose edge the figures are past: that for entering it, or that for leaving it.
PressureLevel PressureGauge::reached(const PressureFigures& figures, bool entering) const {
  const double free = figures.free_percent();
  const double waiting = free < bands_.warning.leave ? figures.psi_some.value_or(0) : 0;
  PressureLevel by_memory = PressureLevel::normal, by_waiting = PressureLevel::normal;
  for (const auto level :
       {PressureLevel::warning, PressureLevel::high, PressureLevel::critical, PressureLevel::emergency}) {
    const PressureBand& edge = band(level);
    if (free < (entering ? edge.enter : edge.leave)) by_memory = level;
    if (waiting >= (entering ? edge.psi : edge.psi / 2)) by_waiting = level;
  }
  return std::max(by_memory, std::min(by_waiting, above(by_memory)));
}

PressureLevel PressureGauge::next(const PressureFigures& figures, Clock::time_point now) {
  const PressureLevel risen = reached(figures, true);
  const PressureLevel held = std::min(level_, reached(figures, false));
  const PressureLevel wanted = std::max(risen, held);
  if (wanted > level_ || (wanted < level_ && now >= stays_until())) {
    level_ = wanted;
    since_ = now;
  }
  return level_;
}

}  // namespace hutch::sandbox
