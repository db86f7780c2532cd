#include <doctest/doctest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "base/process.h"
#include "base/sys.h"
#include "runtime/cgroup.h"

using namespace hutch;
using namespace std::chrono_literals;

namespace {

/// A process in groups of its own, where the host lets us make some with a freezer.
struct Grouped {
  runtime::CgroupHost host = runtime::CgroupHost::probe();
  runtime::Cgroup cgroup{host, "unit-test", std::to_string(::getpid())};
  std::optional<Process> process;
  UniqueFd pidfd;

  Grouped() {
    if (!usable()) return;
    cgroup.create();
    process = Process::spawn({.argv = {"/bin/sh", "-c", "while :; do :; done"}, .env = {}, .fds = {}});
    pidfd = pidfd_open(process->pid());
    for (const auto& [_, folder] : cgroup.folders())
      sys::write_file(folder + "/cgroup.procs", std::to_string(process->pid()));
  }
  ~Grouped() {
    if (!usable()) return;
    cgroup.kill_all();
    process.reset();
    for (int i = 0; i < 1000 && !cgroup.remove(); ++i) ::usleep(1000);
  }
  bool usable() const { return host.bases().contains(host.v2() ? "" : "freezer"); }
  uint64_t cpu_us() const { return cgroup.usage().cpu_us.value_or(0); }
};

}  // namespace

TEST_SUITE("cgroup") {
  TEST_CASE("a frozen group uses no processor until it is thawed") {
    const Grouped busy;
    if (!busy.usable()) return;
    busy.cgroup.freeze(true);
    const uint64_t before = busy.cpu_us();
    ::usleep(30'000);
    CHECK(busy.cpu_us() == before);
    busy.cgroup.freeze(false);
    for (int i = 0; i < 1000 && busy.cpu_us() == before; ++i) ::usleep(1000);
    CHECK(busy.cpu_us() > before);
  }

  TEST_CASE("what is frozen can be killed") {
    const Grouped busy;
    if (!busy.usable()) return;
    busy.cgroup.freeze(true);
    busy.cgroup.kill_all();
    CHECK(wait_for_end(busy.pidfd.get(), Clock::now() + 10s));
  }

  TEST_CASE("a group without a freezer says so") {
    CHECK_THROWS_WITH(runtime::Cgroup(false, {{"memory", "/nowhere"}}).freeze(true),
                      "the freezer controller is not available");
  }
}
