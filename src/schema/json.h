#pragma once

#include <nlohmann/json.hpp>

namespace hutch {

/// What others send: a sorted map, so that a message with a million keys costs no quadratic time.
using nlohmann::json;
/// What is written: keys keep the order in which a struct describes them (`path` before `content`).
using nlohmann::ordered_json;

}  // namespace hutch
