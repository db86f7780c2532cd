#pragma once

#include <nlohmann/json.hpp>
#include <vector>

namespace hutch::bench {

using Json = nlohmann::ordered_json;

/// Times of one operation, in ms.
class Samples {
 public:
  void add(double ms) { ms_.push_back(ms); }
  void add(const Samples& other) { ms_.insert(ms_.end(), other.ms_.begin(), other.ms_.end()); }
  /// Of each, what it took longer than the one of `other` with the same number; both have as many.
  Samples minus(const Samples& other) const;
  size_t size() const noexcept { return ms_.size(); }
  /// {"n", "p50", "p90", "p99", "max"}; the times are in ms. Percentiles are by nearest rank, so each is a
  /// time that was really measured. Without samples only {"n": 0}.
  Json summary() const;

 private:
  std::vector<double> ms_;
};

}  // namespace hutch::bench
