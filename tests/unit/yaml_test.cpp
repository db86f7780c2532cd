#include "schema/yaml_reader.h"
#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::schema;
using hutch::test::error_of;

struct Inner {
  int64_t count = 1;
  std::string name;

  template <class V>
  void describe(V& v) {
    v.optional("count", count, "", {.min = 1, .max = 9});
    v.optional("name", name, "");
  }
};

struct Root {
  Inner inner;
  bool on = false;
  double ratio = 1;
  Bytes size = mib(1);
  std::vector<std::string> list;
  std::map<std::string, Inner> many;

  template <class V>
  void describe(V& v) {
    v.optional("inner", inner, "");
    v.optional("on", on, "");
    v.optional("ratio", ratio, "");
    v.optional("size", size, "");
    v.optional("list", list, "");
    v.optional("many", many, "");
  }
};

Root read(const std::string& text) {
  Root root;
  read_yaml(parse_yaml(text, "f.yaml"), "f.yaml", root);
  return root;
}
std::string yaml_problems(const std::string& text) {
  return error_of([&] { (void)read(text); });
}

}  // namespace

TEST_SUITE("YAML") {
  TEST_CASE("all kinds of values are read") {
    const Root root = read(
        "inner: {count: 3, name: x}\non: true\nratio: 0.5\nsize: 2g\nlist: [a, 'b']\nmany:\n  k:\n    count: "
        "2\n");
    CHECK(root.inner.count == 3);
    CHECK(root.on);
    CHECK(root.ratio == 0.5);
    CHECK(root.size == gib(2));
    CHECK(root.list == std::vector<std::string>{"a", "b"});
    CHECK(root.many.at("k").count == 2);
  }

  TEST_CASE("an empty file and an empty section change nothing") {
    CHECK(read("").inner.count == 1);
    CHECK(read("# only a comment\n").inner.count == 1);
    CHECK(read("inner:\n  # nothing yet\n").inner.count == 1);
  }

  TEST_CASE("messages name file, line and column") {
    CHECK_CONTAINS(yaml_problems("on: true\ninner:\n  count: 12\n"),
                   "f.yaml:3:3: 'inner.count' must be at most 9, got 12");
    CHECK_CONTAINS(yaml_problems("inner:\n  cuont: 1\n"),
                   "f.yaml:2:3: 'inner.cuont' is not known; did you mean 'count'?");
    CHECK_CONTAINS(yaml_problems("list: [a, 5]\n"), "f.yaml:1:11: 'list[1]' must be a text, got 5");
    CHECK_CONTAINS(yaml_problems("on: [\n"), "f.yaml:");
    CHECK_CONTAINS(yaml_problems("- a\n"), "f.yaml:1:1: must be `key: value` lines");
  }

  TEST_CASE("a repeated key is an error that names the first line") {
    CHECK_CONTAINS(yaml_problems("on: true\nratio: 2\non: false\n"),
                   "f.yaml:3:1: 'on' is given twice, first in line 1");
    CHECK_CONTAINS(yaml_problems("many:\n  a: {count: 1}\n  a: {count: 2}\n"),
                   "f.yaml:3:3: 'many.a' is given twice");
  }

  TEST_CASE("values that YAML versions read differently are not guessed") {
    CHECK_CONTAINS(yaml_problems("inner:\n  count: 07\n"),
                   "f.yaml:2:3: 'inner.count' is 07: YAML reads a leading zero as octal");
    CHECK_CONTAINS(yaml_problems("inner:\n  count: '5'\n"),
                   "'inner.count' must be an integer, got the text \"5\"");
    CHECK_CONTAINS(yaml_problems("inner:\n  count: 0x5\n"),
                   "'inner.count' must be an integer, got the text \"0x5\"");
    for (const char* word : {"yes", "no", "on", "off", "True", "'true'"}) {
      CAPTURE(word);
      CHECK_CONTAINS(yaml_problems(std::string("on: ") + word + "\n"), "'on' must be true or false");
    }
    CHECK(read("inner:\n  name: no\n").inner.name == "no");
    CHECK(read("inner:\n  name: '5'\n").inner.name == "5");
    CHECK_CONTAINS(yaml_problems("inner:\n  name: 5\n"), "'inner.name' must be a text, got 5");
  }

  TEST_CASE("two documents and an alias bomb are refused") {
    CHECK_CONTAINS(yaml_problems("on: true\n---\non: false\n"), "holds 2 YAML documents");
    std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 9; ++i) {
      const std::string last = "*a" + std::to_string(i - 1);
      bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + last;
      for (int k = 0; k < 9; ++k) bomb += ", " + last;
      bomb += "]\n";
    }
    CHECK_CONTAINS(yaml_problems(bomb), "more than 100000 values");
  }
}
