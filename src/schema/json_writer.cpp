#include "schema/json_writer.h"

#include <cmath>

namespace hutch::schema {

ordered_json to_json(double value) {
  // Below this every whole double is an exact int64.
  if (std::trunc(value) == value && std::fabs(value) < 9e15) return static_cast<int64_t>(value);
  return value;
}

}  // namespace hutch::schema
