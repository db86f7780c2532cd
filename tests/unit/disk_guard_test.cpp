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

constexpr uint64_t kMebibyte = 1u << 20;

/// A host of figures. A closed disk has all its room used.
struct HostDisk {
  static constexpr uint64_t kFiller = 5000 * kMebibyte;
  DiskSpace space{1000 * kMebibyte, 900 * kMebibyte};
  std::map<std::string, uint64_t> written, used;
  std::set<std::string> shut, failing;

  DiskHooks hooks() {
    return {.space = [this] { return space; },
            .written = [this](const GuardedDisk& d) { return written[d.id]; },
            .used = [this](const GuardedDisk& d) { return used[d.id] + (shut.contains(d.id) ? kFiller : 0); },
            .close = [this](const GuardedDisk& d) -> uint64_t {
              if (failing.contains(d.id)) throw Error(Errc::unavailable, "no");
              shut.insert(d.id);
              return kFiller;
            },
            .reopen = [this](const GuardedDisk& d) { shut.erase(d.id); }};
  }
};

GuardedDisk disk(const std::string& id) {
  return {.id = id, .disk = hutch::runtime::DiskId{}, .agent = 0, .image = {}};
}

const DiskSettings kSettings{.reserve_bytes = 80 * kMebibyte, .reserve_percent = 5};

}  // namespace

TEST_CASE("the reserve is the larger of bytes and percent") {
  CHECK(kSettings.reserve({1000 * kMebibyte, 0}) == 80 * kMebibyte);
  CHECK(kSettings.reserve({10'000 * kMebibyte, 0}) == 500 * kMebibyte);
}

TEST_CASE("disks are closed below the reserve, and opened again only well above it") {
  HostDisk host;
  DiskGuard guard(kSettings, host.hooks());
  const std::vector<GuardedDisk> both{disk("a"), disk("b")};
  CHECK_FALSE(guard.look(both).closed);
  host.space.free = 80 * kMebibyte;
  CHECK_FALSE(guard.look(both).closed);
  host.space.free = 80 * kMebibyte - 1;
  CHECK(guard.look(both).closed);
  CHECK(host.shut == std::set<std::string>{"a", "b"});
  CHECK(guard.reason().find("0.1 GB") != std::string::npos);
  host.space.free = 89 * kMebibyte;
  CHECK(guard.look(both).closed);
  host.space.free = 90 * kMebibyte;
  CHECK_FALSE(guard.look(both).closed);
  CHECK(host.shut.empty());
  CHECK(guard.reason().empty());
}

TEST_CASE("what is made while the disk is short, or was closed by a dead server, is closed and opened too") {
  HostDisk host;
  DiskGuard guard(kSettings, host.hooks());
  host.space.free = 10 * kMebibyte;
  guard.look({disk("a")});
  guard.look({disk("a"), disk("b")});
  CHECK(host.shut == std::set<std::string>{"a", "b"});
  host.shut.insert("c");
  guard.take_over(disk("c"));
  CHECK_FALSE(host.shut.contains("c"));
  guard.look({disk("a"), disk("b"), disk("c")});
  CHECK(host.shut.contains("c"));
  host.space.free = 500 * kMebibyte;
  guard.look({disk("a"), disk("b"), disk("c")});
  CHECK(host.shut.empty());
}

TEST_CASE("what cannot be closed is named, and tried again") {
  HostDisk host;
  DiskGuard guard(kSettings, host.hooks());
  host.space.free = 10 * kMebibyte;
  host.failing = {"a"};
  GuardedDisk folder = disk("f");
  folder.disk.reset();
  CHECK(guard.look({disk("a"), folder}).open_still == std::vector<std::string>{"a", "f"});
  host.failing.clear();
  CHECK(guard.look({disk("a"), folder}).open_still == std::vector<std::string>{"f"});
  CHECK(host.shut == std::set<std::string>{"a"});
}

TEST_CASE("what is promised and not yet written counts as gone") {
  HostDisk host;
  DiskGuard guard(kSettings, host.hooks());
  const std::vector<GuardedDisk> both{disk("a"), disk("b")};
  host.space.free = 100 * kMebibyte;
  host.written = {{"a", 50 * kMebibyte}, {"b", 40 * kMebibyte}};
  host.used = {{"a", 60 * kMebibyte}, {"b", 10 * kMebibyte}};
  CHECK_FALSE(guard.look(both).closed);
  host.used["a"] = 71 * kMebibyte;
  CHECK(guard.look(both).closed);
  host.used["a"] = 1000 * kMebibyte;
  CHECK(guard.look(both).closed);
  CHECK(guard.reason().find("0.0 GB free") != std::string::npos);
  CHECK_THROWS_AS(guard.check_room_for_create(), Error);
}

TEST_CASE(
    "a volume that no sandbox has any more is given back, since others may have it; a sandbox's disk is not "
    "touched") {
  HostDisk host;
  DiskGuard guard(kSettings, host.hooks());
  GuardedDisk volume = disk("volume v");
  volume.is_volume = true;
  host.space.free = 10 * kMebibyte;
  guard.look({disk("a"), volume});
  CHECK(host.shut == std::set<std::string>{"a", "volume v"});
  CHECK(guard.look({}).closed);
  CHECK(host.shut == std::set<std::string>{"a"});
  guard.look({volume});
  CHECK(host.shut.contains("volume v"));
  host.space.free = 500 * kMebibyte;
  guard.look({volume});
  CHECK(host.shut == std::set<std::string>{"a"});
}

TEST_CASE("a create is refused at the reserve, whoever has looked before") {
  HostDisk host;
  DiskGuard guard(kSettings, host.hooks());
  CHECK_NOTHROW(guard.check_room_for_create());
  host.space.free = 10 * kMebibyte;
  try {
    guard.check_room_for_create();
    FAIL("not refused");
  } catch (const Error& e) {
    CHECK(e.code() == Errc::limit_exceeded);
    CHECK(e.hint().find("disk_reserve") != std::string::npos);
  }
}
