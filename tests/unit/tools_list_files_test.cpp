#include "support.h"
#include "tools/sandbox_list_files.h"

using namespace hutch::tools;

TEST_CASE("a listing has one line an entry, aligned, whatever the names") {
  FileListing listing{.sandbox_id = "sbx-1", .path = "/workspace"};
  listing.entries = {{.path = "a.py", .type = "file", .size = 5},
                     {.path = "big", .type = "file", .size = 161 << 20},
                     {.path = "src", .type = "dir", .size = 4096},
                     {.path = "src/new\nline\xFF", .type = "fifo"},
                     {.path = "to", .type = "symlink", .target = "a.py"}};
  CHECK(text_of(listing) ==
        "/workspace · 5 entries · sbx-1\n"
        "-  5 bytes a.py\n"
        "- 161.0 MB big\n"
        "d          src/\n"
        "p          src/new\\nline\xEF\xBF\xBD\n"
        "l          to -> a.py");
}

TEST_CASE("a listing says when there is more") {
  FileListing listing{
      .sandbox_id = "sbx-1", .path = "/w", .truncated = true, .notes = {"There are more than 1."}};
  listing.entries = {{.path = "a", .type = "socket"}};
  CHECK(text_of(listing) == "/w · first 1 entry · sbx-1\ns  a\nThere are more than 1.");
}
