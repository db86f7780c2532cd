#include <doctest/doctest.h>

#include <string>

#include "sandbox/drivers/drivers.h"

using namespace hutch::sandbox;

TEST_SUITE("drivers of interpreters") {
  TEST_CASE("a request to bash is its code as it is, between lines that nobody can guess") {
    CHECK(bash_request("echo \"it's\" !\n$x", "ab12") ==
          "{ builtin trap - INT; } 2>/dev/null; builtin . /dev/fd/97 97<<'hutch-ab12' </dev/null\n"
          "echo \"it's\" !\n$x\n"
          "hutch-ab12\n"
          "{ hutch_answer ab12; } 2>/dev/null\n");
  }

  TEST_CASE("environment and folder are quoted, and a folder that is missing keeps the code from running") {
    const std::string request = bash_request("", "ab", true, {{"A", "it's $B"}}, "-a b");
    CHECK(request.find("builtin export -- 'A=it'\\''s $B' && builtin cd -- '-a b' && builtin . ") !=
          std::string::npos);
    CHECK(request.ends_with("{ hutch_answer ab split; } 2>/dev/null\n"));
  }

  TEST_CASE("the drivers are in the program, whole") {
    CHECK(python_driver().ends_with("serve()\n"));
    CHECK(node_driver().ends_with("})();\n"));
    CHECK(bash_driver().ends_with("}\n"));
    CHECK(python_argv().back() == python_driver());
    CHECK(node_argv().back() == node_driver());
  }
}
