#include "cli/print.h"

#include "support.h"

namespace {

using namespace hutch::cli;

TEST_CASE("columns begin below each other, whatever the length of a character") {
  CHECK(columns({{"ID", "NAME", "WHY"}, {"1", "é", "x"}, {"22", "long", ""}}) ==
        "ID  NAME  WHY\n1   é     x\n22  long\n");
  CHECK(columns({{"ID", "NAME"}}) == "");
}

TEST_CASE("times are told in at most two units") {
  CHECK(time_in_words(0) == "0 s");
  CHECK(time_in_words(59) == "59 s");
  CHECK(time_in_words(3599) == "59 min");
  CHECK(time_in_words(7200) == "2 h");
  CHECK(time_in_words(11'100) == "3 h 5 min");
  CHECK(time_in_words(2 * 86'400 + 4 * 3600 + 59) == "2 d 4 h");
}

}  // namespace
