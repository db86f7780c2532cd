#include <doctest/doctest.h>

#include "base/error.h"
#include "tools/eval_languages.h"

using namespace hutch::tools;

TEST_SUITE("languages of sandbox_eval") {
  TEST_CASE("the language is guessed from the first line, the file's ending, or the looks of the code") {
    CHECK(guess_language("#!/usr/bin/env node\n1", "") == "javascript");
    CHECK(guess_language("#!/bin/bash\nls", "") == "bash");
    CHECK(guess_language("x", "a/b.rb") == "ruby");
    CHECK(guess_language("print('a')", "") == "python");
    CHECK(guess_language("const a = 1; console.log(a)", "") == "javascript");
    CHECK(guess_language("echo $HOME", "") == "bash");
    CHECK(guess_language("1+1", "") == "python");
  }

  TEST_CASE("usual short names are taken") {
    CHECK(find_language("py").name == "python");
    CHECK(find_language("js").name == "javascript");
    CHECK(find_language("shell").name == "bash");
  }

  TEST_CASE("an unknown language names the known ones") {
    try {
      find_language("cobol");
      FAIL("no error");
    } catch (const hutch::Error& e) {
      CHECK(e.code() == hutch::Errc::invalid_argument);
      CHECK(e.hint().find("python") != std::string::npos);
    }
  }
}
