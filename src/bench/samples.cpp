#include "bench/samples.h"

#include <algorithm>
#include <cmath>

namespace hutch::bench {

Samples Samples::minus(const Samples& other) const {
  Samples out;
  for (size_t i = 0; i < ms_.size(); ++i) out.add(ms_[i] - other.ms_.at(i));
  return out;
}

Json Samples::summary() const {
  if (ms_.empty()) return {{"n", 0}};
  std::vector<double> sorted = ms_;
  std::ranges::sort(sorted);
  const auto rank = [&](double share) {
    const auto nth = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
    return sorted[std::max<size_t>(nth, 1) - 1];
  };
  return {{"n", sorted.size()},
          {"p50", rank(0.50)},
          {"p90", rank(0.90)},
          {"p99", rank(0.99)},
          {"max", sorted.back()}};
}

}  // namespace hutch::bench
