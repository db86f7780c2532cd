#pragma once

#include <doctest/doctest.h>

#include <string>

#include "base/error.h"

namespace hutch::test {

/// The text of the Error that `fn` throws, with steps and hint; empty and a failed check when it throws none.
template <class Fn>
std::string error_of(Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error_text(error);
  }
  FAIL_CHECK("no Error was thrown");
  return {};
}

inline bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != text.npos;
}

}  // namespace hutch::test

/// A failing check shows both texts.
#define CHECK_CONTAINS(text, part)              \
  do {                                          \
    const std::string text_ = (text);           \
    const std::string part_ = (part);           \
    CAPTURE(text_);                             \
    CAPTURE(part_);                             \
    CHECK(hutch::test::contains(text_, part_)); \
  } while (false)
