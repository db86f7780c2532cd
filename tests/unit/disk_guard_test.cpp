#include "sandbox/disk_guard.h"

#include <set>

#include "support.h"

using hutch::Errc;
using hutch::Error;
using hutch::sandbox::DiskGuard;
using hutch::sandbox::DiskHooks;
using hutch::sandbox::DiskSettings;
using hutch::sandbox::DiskSpace;
using hutch::sandbox::GuardedDisk;

namespace {

constexpr uint64_t kMiB = 1u << 20;

/// A host of figures. A closed disk has all its room used.
struct Host {
  static constexpr uint64_t kFiller = 5000 * kMiB;
  DiskSpace space{1000 * kMiB, 900 * kMiB};
  std::map<std::string, uint64_t> written, used;
  std::set<std::string> shut, failing;

  DiskHooks hooks() {
    return {.space = [this] { return space; },
            .written = [this](const GuardedDisk& d) { return written[d.sandbox_id]; },
            .used =
                [this](const GuardedDisk& d) {
                  return used[d.sandbox_id] + (shut.contains(d.sandbox_id) ? kFiller : 0);
                },
            .close = [this](const GuardedDisk& d) -> uint64_t {
              if (failing.contains(d.sandbox_id)) throw Error(Errc::unavailable, "no");
              shut.insert(d.sandbox_id);
              return kFiller;
            },
            .reopen = [this](const GuardedDisk& d) { shut.erase(d.sandbox_id); }};
  }
};

GuardedDisk disk(const std::string& id, uint64_t limit = 100 * kMiB) {
  return {.sandbox_id = id, .disk = hutch::runtime::DiskId{}, .agent = 0, .image = {}, .limit_bytes = limit};
}

const DiskSettings kSettings{.reserve_bytes = 80 * kMiB, .reserve_percent = 5, .overcommit = 2};

}  // namespace

TEST_CASE("the reserve is the larger of bytes and percent") {
  CHECK(kSettings.reserve({1000 * kMiB, 0}) == 80 * kMiB);
  CHECK(kSettings.reserve({10'000 * kMiB, 0}) == 500 * kMiB);
}

TEST_CASE("disks are closed below the reserve, and opened again only well above it") {
  Host host;
  DiskGuard guard(kSettings, host.hooks());
  const std::vector<GuardedDisk> both{disk("a"), disk("b")};
  CHECK_FALSE(guard.look(both).closed);
  host.space.free = 80 * kMiB;
  CHECK_FALSE(guard.look(both).closed);
  host.space.free = 80 * kMiB - 1;
  CHECK(guard.look(both).closed);
  CHECK(host.shut == std::set<std::string>{"a", "b"});
  CHECK(guard.reason().find("0.1 GB") != std::string::npos);
  host.space.free = 89 * kMiB;
  CHECK(guard.look(both).closed);
  host.space.free = 90 * kMiB;
  CHECK_FALSE(guard.look(both).closed);
  CHECK(host.shut.empty());
  CHECK(guard.reason().empty());
}

TEST_CASE("what is made while the disk is short, or was closed by a dead server, is closed and opened too") {
  Host host;
  DiskGuard guard(kSettings, host.hooks());
  host.space.free = 10 * kMiB;
  guard.look({disk("a")});
  guard.look({disk("a"), disk("b")});
  CHECK(host.shut == std::set<std::string>{"a", "b"});
  host.shut.insert("c");
  guard.take_over(disk("c"));
  CHECK_FALSE(host.shut.contains("c"));
  guard.look({disk("a"), disk("b"), disk("c")});
  CHECK(host.shut.contains("c"));
  host.space.free = 500 * kMiB;
  guard.look({disk("a"), disk("b"), disk("c")});
  CHECK(host.shut.empty());
}

TEST_CASE("what cannot be closed is named, and tried again") {
  Host host;
  DiskGuard guard(kSettings, host.hooks());
  host.space.free = 10 * kMiB;
  host.failing = {"a"};
  GuardedDisk folder = disk("f");
  folder.disk.reset();
  CHECK(guard.look({disk("a"), folder}).open_still == std::vector<std::string>{"a", "f"});
  host.failing.clear();
  CHECK(guard.look({disk("a"), folder}).open_still == std::vector<std::string>{"f"});
  CHECK(host.shut == std::set<std::string>{"a"});
}

TEST_CASE("what is promised and not yet written counts as gone") {
  Host host;
  DiskGuard guard(kSettings, host.hooks());
  const std::vector<GuardedDisk> both{disk("a"), disk("b")};
  host.space.free = 100 * kMiB;
  host.written = {{"a", 50 * kMiB}, {"b", 40 * kMiB}};
  host.used = {{"a", 60 * kMiB}, {"b", 10 * kMiB}};
  CHECK_FALSE(guard.look(both).closed);
  host.used["a"] = 71 * kMiB;
  CHECK(guard.look(both).closed);
  host.used["a"] = 1000 * kMiB;
  CHECK(guard.look(both).closed);
  CHECK(guard.reason().find("0.0 GB free") != std::string::npos);
  CHECK_THROWS_AS(guard.check_room_for_create(), Error);
}

TEST_CASE("a create is refused at the reserve, whoever has looked before") {
  Host host;
  DiskGuard guard(kSettings, host.hooks());
  CHECK_NOTHROW(guard.check_room_for_create());
  host.space.free = 10 * kMiB;
  try {
    guard.check_room_for_create();
    FAIL("not refused");
  } catch (const Error& e) {
    CHECK(e.code() == Errc::limit_exceeded);
    CHECK(e.hint().find("disk_reserve") != std::string::npos);
  }
}

TEST_CASE("room for new ones is the overcommitted free space less what the others have not written yet") {
  Host host;
  DiskGuard guard(kSettings, host.hooks());
  host.space.free = 300 * kMiB;
  host.written = {{"a", 30 * kMiB}, {"b", 110 * kMiB}};
  GuardedDisk folder = disk("f");
  folder.disk.reset();
  CHECK(guard.free_for_new({disk("a"), disk("b"), folder}) == static_cast<int64_t>(530 * kMiB));
  CHECK(guard.free_for_new({disk("c", 700 * kMiB)}) == -static_cast<int64_t>(100 * kMiB));
}
