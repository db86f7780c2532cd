#include "tools/glob.h"

#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::tools;

bool matches(std::string_view pattern, std::string_view path) {
  return Glob(pattern).matches(path);
}

}  // namespace

TEST_CASE("without a slash the name is matched, in any folder") {
  CHECK(matches("*.py", "a.py"));
  CHECK(matches("*.py", "src/deep/a.py"));
  CHECK_FALSE(matches("*.py", "a.pyc"));
  CHECK_FALSE(matches("src", "src/a.py"));
  CHECK(matches("src", "lib/src"));
  CHECK(matches("?[0-9].log", "x7.log"));
  CHECK(matches("*", ".hidden"));
  CHECK(matches("[!.]*", "shown"));
  CHECK_FALSE(matches("[!.]*", ".hidden"));
}

TEST_CASE("with a slash the path is matched from its beginning, name by name") {
  CHECK(matches("src/*.py", "src/a.py"));
  CHECK_FALSE(matches("src/*.py", "src/deep/a.py"));
  CHECK_FALSE(matches("src/*.py", "lib/src/a.py"));
  CHECK_FALSE(matches("src/*", "src"));
  CHECK(matches("*/a.py", "src/a.py"));
  CHECK(matches("./src//*.py", "src/a.py"));
}

TEST_CASE("two stars are any number of folders") {
  CHECK(matches("**/*.py", "a.py"));
  CHECK(matches("**/*.py", "x/y/z/a.py"));
  CHECK(matches("src/**/*.py", "src/a.py"));
  CHECK(matches("src/**/*.py", "src/x/y/a.py"));
  CHECK_FALSE(matches("src/**/*.py", "lib/src/a.py"));
  CHECK(matches("src/**", "src/x/y"));
  CHECK_FALSE(matches("src/**", "src"));
  CHECK(matches("**", "x/y"));
  CHECK(matches("**/b/**/d", "a/b/c/b/x/d"));
  CHECK(matches("**/b/c", "b/b/b/c"));
  CHECK_FALSE(matches("**/b/**/d", "a/b/c/b/x/e"));
  CHECK(matches("a/**/**/b", "a/b"));
}

TEST_CASE("braces are alternatives") {
  CHECK(matches("*.{h,cpp}", "x/a.h"));
  CHECK(matches("*.{h,cpp}", "a.cpp"));
  CHECK_FALSE(matches("*.{h,cpp}", "a.c"));
  CHECK(matches("{src,lib}/**/*.{h,c{pp,xx}}", "lib/x/a.cxx"));
  CHECK(matches("a{,b}", "a"));
  CHECK(matches("a{,b}", "ab"));
  CHECK(matches("a{b", "a{b"));
  CHECK(matches("a\\{b\\}", "a{b}"));
}

TEST_CASE("an empty pattern matches everything") {
  CHECK(matches("", "x/y"));
  CHECK(matches("", ".z"));
}

TEST_CASE("a pattern says how deep its matches can be") {
  CHECK(Glob("").depth() == 1);
  CHECK(Glob("*.py").depth() == 1);
  CHECK(Glob("src/*.py").depth() == 2);
  CHECK(Glob("{a,b/c/d}").depth() == 3);
  CHECK(Glob("src/**").depth() == 0);
}

TEST_CASE("bad patterns say why") {
  CHECK_CONTAINS(test::error_of([] { Glob("/workspace/*.py"); }), "must not begin with '/'");
  CHECK_CONTAINS(test::error_of([] { Glob("../*.py"); }), "names nothing below the folder");
  CHECK_CONTAINS(test::error_of([] { Glob("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}"); }),
                 "too many alternatives");
  CHECK_CONTAINS(test::error_of([] { Glob(std::string(1001, 'a')); }), "longer than 1000");
}

TEST_CASE("no pattern takes long") {
  std::string stars, folders, path;
  for (int i = 0; i < 200; ++i) stars += "*a";
  for (int i = 0; i < 100; ++i) folders += "**/a/";
  for (int i = 0; i < 1000; ++i) path += "a/";
  CHECK_FALSE(matches(stars + "b", std::string(255, 'a')));
  CHECK_FALSE(matches(folders + "b", path + "c"));
}
