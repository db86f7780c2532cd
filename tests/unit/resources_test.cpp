#include "mcp/resources.h"
#include "mcp/versions.h"
#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::mcp;
using hutch::test::error_of;

/// Reads as what its variables are.
ResourceContent tell(const ResourceRegistry::Variables& variables, CallContext&) {
  std::string text;
  for (const auto& [name, value] : variables) text += name + "=" + value + ";";
  return {.mime_type = "text/plain", .content = text};
}

struct ResourcesFixture {
  ResourceRegistry registry;
  std::vector<std::string> ids = {"ape", "bee", "bear"};

  ResourcesFixture() {
    registry.add({.uri = "zoo://state", .name = "state", .title = "State", .mime_type = "text/plain"}, tell);
    registry.add({.uri = "zoo://{id}/files/{+path}", .name = "file"}, tell, {{"id", [this] { return ids; }}});
    registry.add({.uri = "zoo://{id}/logs/{number}", .name = "log"}, tell);
  }

  std::string read(const std::string& uri) {
    CallContext context;
    return registry.read(uri, context)["text"];
  }
};

TEST_CASE_FIXTURE(ResourcesFixture, "what is a template is listed as one and not among the resources") {
  CHECK(registry.list().size() == 1);
  CHECK(registry.list()[0]["uri"] == "zoo://state");
  REQUIRE(registry.list_templates().size() == 2);
  CHECK(registry.list_templates()[0]["uriTemplate"] == "zoo://{id}/files/{+path}");
  CHECK(!registry.list_templates()[0].contains("mimeType"));
}

TEST_CASE_FIXTURE(ResourcesFixture, "an address is taken apart as its template says") {
  CHECK(read("zoo://state") == "");
  CHECK(read("zoo://ape/files/a/b.txt") == "id=ape;path=a/b.txt;");
  CHECK(read("zoo://ape/files//etc/passwd") == "id=ape;path=/etc/passwd;");
  CHECK(read("zoo://ape/logs/12") == "id=ape;number=12;");
  CHECK(read("zoo://ape/files/logs/12") == "id=ape;path=logs/12;");
}

TEST_CASE_FIXTURE(ResourcesFixture, "percent signs are decoded, and those that encode nothing stay") {
  CHECK(read("zoo://a%70e/files/a%20b%2Fc") == "id=ape;path=a b/c;");
  CHECK(read("zoo://ape/files/100%/%4/%zz%") == "id=ape;path=100%/%4/%zz%;");
  CHECK(read("zoo://ape/files/a?b#c") == "id=ape;path=a?b#c;");
}

TEST_CASE_FIXTURE(ResourcesFixture, "what no template has is not found") {
  for (const char* uri :
       {"", "zoo:", "zoo://", "zoo://state/", "zoo://stat", "zoo://ape/files", "zoo://ape/files/",
        "zoo:///files/x", "zoo://a/b/files/x", "zoo://ape/logs/1/2", "xoo://state"})
    CHECK_CONTAINS(error_of([&] { read(uri); }), "there is no resource");
}

TEST_CASE_FIXTURE(ResourcesFixture, "bytes go out as a blob") {
  registry.add({.uri = "zoo://egg", .name = "egg"}, [](const auto&, CallContext&) {
    return ResourceContent{.mime_type = "image/png", .content = "AAAA", .is_base64 = true};
  });
  CallContext context;
  const ordered_json content = registry.read("zoo://egg", context);
  CHECK(content["blob"] == "AAAA");
  CHECK(!content.contains("text"));
}

TEST_CASE_FIXTURE(ResourcesFixture, "a variable is completed with what begins as it does") {
  const auto found = registry.complete("zoo://{id}/files/{+path}", "id", "be");
  REQUIRE(found);
  CHECK(found->values == std::vector<std::string>{"bee", "bear"});
  CHECK(registry.complete("zoo://{id}/files/{+path}", "path", "")->values.empty());
  CHECK(!registry.complete("zoo://{id}/files/{+path}", "number", ""));
  CHECK(!registry.complete("zoo://{id}", "id", ""));
}

TEST_CASE_FIXTURE(ResourcesFixture, "a completion has 100 values at most and says how many there are") {
  ids.clear();
  for (int i = 0; i < 150; ++i) ids.push_back("x" + std::to_string(i));
  const auto found = registry.complete("zoo://{id}/files/{+path}", "id", "x");
  CHECK(found->values.size() == 100);
  CHECK(found->total == 150);
}

TEST_CASE_FIXTURE(ResourcesFixture,
                  "an address twice and a template that cannot be understood are our mistakes") {
  CHECK_CONTAINS(error_of([&] { registry.add({.uri = "zoo://state"}, tell); }), "added twice");
  for (const char* uri : {"zoo://{id", "zoo://{}", "zoo://{+}", "zoo://{a}{b}"})
    CHECK_CONTAINS(error_of([&] { registry.add({.uri = uri}, tell); }), "no template");
}

TEST_CASE("each revision has its own word for a resource that is not there") {
  CHECK(resource_not_found(Revision::v2024_11_05, "a:b", "none").code == -32002);
  CHECK(resource_not_found(Revision::v2025_11_25, "a:b", "none").code == -32002);
  const ProtocolError modern = resource_not_found(Revision::v2026_07_28, "a:b", "none");
  CHECK(modern.code == -32602);
  CHECK(modern.data["uri"] == "a:b");
}

}  // namespace
