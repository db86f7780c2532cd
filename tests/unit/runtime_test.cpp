#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/sys.h"
#include "runtime/bundle.h"
#include "runtime/embedded.h"
#include "runtime/mountinfo.h"
#include "runtime/stage.h"
#include "runtime/stage_process.h"
#include "runtime/trust_bundle.h"

using namespace hutch;

TEST_SUITE("runtime") {
  TEST_CASE("mountinfo's octal escapes and optional fields are understood") {
    const auto mounts = runtime::parse_mountinfo(
        "22 1 0:20 / /proc rw,relatime shared:1 master:2 - proc proc rw\n"
        "30 22 0:29 /own /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "31 22 8:1 / /mnt/with\\040space\\134 rw - ext4 /dev/sda1 rw\n"
        "broken line\n");
    REQUIRE(mounts.size() == 3);
    CHECK(mounts[0].type == "proc");
    CHECK(mounts[1].root == "/own");
    CHECK(mounts[1].has_option("memory"));
    CHECK_FALSE(mounts[1].has_option("mem"));
    CHECK(mounts[2].target == "/mnt/with space\\");
  }

  TEST_CASE("the trust bundle holds the host's certificates and one more, and is made once for each") {
    std::string folder = "/tmp/hutch-trust-XXXXXX";
    REQUIRE(::mkdtemp(folder.data()) != nullptr);
    const std::string first = runtime::trust_bundle(folder, "-----BEGIN CERTIFICATE-----\nfirst\n");
    const std::string text = sys::read_file(first);
    CHECK(text.ends_with("-----BEGIN CERTIFICATE-----\nfirst\n"));
    const std::string host = "/etc/ssl/certs/ca-certificates.crt";
    if (sys::exists(host)) CHECK((text.starts_with(sys::read_file(host))));
    CHECK(runtime::trust_bundle(folder, "-----BEGIN CERTIFICATE-----\nfirst\n") == first);
    struct stat st {};
    REQUIRE(::stat(first.c_str(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0444);
    // One that was left behind more than a day ago goes; the others may be on their way into a sandbox.
    const timespec times[2] = {{1, 0}, {1, 0}};
    REQUIRE(::utimensat(AT_FDCWD, first.c_str(), times, 0) == 0);
    const std::string second = runtime::trust_bundle(folder, "second"),
                      third = runtime::trust_bundle(folder, "third");
    CHECK_FALSE(sys::exists(first));
    CHECK(sys::exists(second));
    CHECK(sys::exists(third));
    sys::remove_tree(folder);
  }

  TEST_CASE("a bundle shows the trusted certificates only where there are some") {
    runtime::SandboxSpec spec;
    const auto without = runtime::bundle_config(spec, {.root = "/r", .agent = "/a"});
    const auto with = runtime::bundle_config(spec, {.root = "/r", .agent = "/a", .trust = "/t"});
    CHECK(without.find(runtime::kTrustPath) == std::string::npos);
    CHECK(with.find(runtime::kTrustPath) != std::string::npos);
    CHECK(with.find("\"source\":\"/t\"") != std::string::npos);
  }

  TEST_CASE("a stage plan reads back step by step as it was written") {
    runtime::StagePlan plan;
    plan.join("/sys/fs/cgroup/x/tasks");
    plan.private_mounts();
    plan.bind_shifted("/a path\nwith all sorts", "/mnt/lower");
    plan.exec({"/usr/bin/crun", "run", ""});
    CHECK(plan.to_text() ==
          "join /sys/fs/cgroup/x/tasks\nprivate_mounts\nbind_shifted /a path\nwith all sorts /mnt/lower\n"
          "exec /usr/bin/crun run \n");
  }

  TEST_CASE("a stage plan's text cuts what is long") {
    runtime::StagePlan plan;
    plan.write_file("/mnt/config.json", std::string(10'000, 'x'));
    CHECK(plan.to_text().size() < 600);
    CHECK(runtime::parse_stage_plan(plan.encoded()).at(0).at(2).size() == 10'000);
  }

  TEST_CASE("a stage says which step failed, and why") {
    runtime::StagePlan plan;
    plan.make_dir("/proc/nowhere/x", 0755, 0);
    plan.exec({"/bin/true"});
    runtime::StageProcess stage;
    try {
      (void)stage.run(plan, "/nowhere", Clock::now() + std::chrono::seconds(10));
      FAIL("nothing was thrown");
    } catch (const Error& e) {
      CHECK(e.code() == Errc::unavailable);
      const std::string text = error_text(e);
      CHECK(text.find("mkdir /proc/nowhere/x: No such file or directory (ENOENT)") != std::string::npos);
      CHECK(text.find("dir /proc/nowhere/x 493 0") != std::string::npos);
    }
  }

  TEST_CASE("a stage does not go on when the server gave up") {
    runtime::StagePlan plan;
    plan.wait_for_server();
    plan.exec({"/bin/true"});
    runtime::StageProcess stage;
    const auto give_up = [] { throw Error(Errc::limit_exceeded, "no cgroup"); };
    CHECK_THROWS_WITH(stage.run(plan, "/nowhere", Clock::now() + std::chrono::seconds(10), give_up),
                      "no cgroup");
  }

  TEST_CASE("the stage program in memory cannot be changed") {
    const UniqueFd memory = runtime::program_memory(runtime::stage_program());
    if (!memory) return;  // the host executes no such memory
    const auto bytes = runtime::stage_program().bytes;
    std::string content(bytes.size(), '\0');
    CHECK(::pread(memory.get(), content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
    CHECK(content == bytes);
    CHECK(::pwrite(memory.get(), "x", 1, 0) == -1);
    CHECK(::ftruncate(memory.get(), 0) == -1);
  }

  TEST_CASE("a stage plan takes no NUL byte") {
    runtime::StagePlan plan;
    CHECK_THROWS_AS(plan.bind(std::string("/a\0b", 4), "/c"), Error);
  }

  TEST_CASE("the bundle drops what could reach the host") {
    runtime::SandboxSpec spec;
    spec.first_id = 0x70000000;
    const auto config = nlohmann::json::parse(runtime::bundle_config(
        spec,
        {.root = "/mnt/root", .agent = "/mnt/agent", .cgroups_path = "", .user_namespace = "/mnt/users"}));
    CHECK(config.at("process").at("noNewPrivileges") == true);
    for (const char* set : {"bounding", "effective", "permitted"})
      for (const char* dangerous :
           {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_MKNOD"}) {
        CAPTURE(dangerous);
        const auto& held = config.at("process").at("capabilities").at(set);
        CHECK(std::find(held.begin(), held.end(), dangerous) == held.end());
      }
    CHECK_FALSE(config.at("process").at("capabilities").contains("ambient"));
    CHECK_FALSE(config.at("process").at("capabilities").contains("inheritable"));
    CHECK(config.at("linux").at("uidMappings").at(0).at("hostID") == 0x70000000);
    std::vector<std::string> namespaces;
    for (const auto& ns : config.at("linux").at("namespaces")) namespaces.push_back(ns.at("type"));
    for (const char* wanted : {"pid", "mount", "ipc", "uts", "network", "cgroup", "user"}) {
      CAPTURE(wanted);
      CHECK(std::find(namespaces.begin(), namespaces.end(), wanted) != namespaces.end());
    }
  }
}
