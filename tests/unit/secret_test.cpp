#include "net/secret.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <chrono>
#include <type_traits>

#include "config/load.h"
#include "streams.h"
#include "support.h"

using namespace hutch;
using test::contains;

namespace {

constexpr const char* kCanary = "canary-0123456789";

// A value reaches no log, error or output by accident: there is no way that compiles.
static_assert(!std::is_copy_constructible_v<net::SecretValue> &&
              !std::is_copy_assignable_v<net::SecretValue>);
static_assert(!std::is_convertible_v<net::SecretValue, std::string_view>);
static_assert(!std::is_convertible_v<net::SecretValue, std::string>);
static_assert(!fmt::is_formattable<net::SecretValue>::value);

config::Secret with(auto change) {
  config::Secret out{.hosts = {"api.test"}};
  change(out);
  return out;
}
config::Secret from_command(const std::string& script) {
  return with([&](config::Secret& secret) { secret.command = {"sh", "-c", script}; });
}

struct Outcome {
  std::string value, error;
};
/// What reading it comes to.
Outcome read(const config::Secret& from) {
  asio::io_context io;
  net::SecretStore store({{"KEY", from}});
  Outcome out;
  test::run(io, {[&]() -> asio::awaitable<void> {
              try {
                out.value = (co_await store.value("KEY"))->reveal();
              } catch (const Error& error) {
                out.error = error_text(error);
              }
            }});
  return out;
}

/// The problems of a configuration.
std::string problems_of(const std::string& yaml) {
  test::ScratchFolder folder;
  const std::string file = folder.path() + "/hutch.yaml";
  sys::write_file(file, yaml);
  return test::error_of([&] { (void)config::load_config({.file = file, .is_root = true}); });
}

}  // namespace

TEST_SUITE("secret") {
  TEST_CASE("a value comes from a variable, a file or a command, without its last newline") {
    ::setenv("TEST_SECRET", kCanary, 1);
    CHECK(read(with([](auto& secret) { secret.env = "TEST_SECRET"; })).value == kCanary);
    test::ScratchFolder folder;
    sys::write_file(folder.path() + "/key", std::string(kCanary) + "\n");
    CHECK(read(with([&](auto& secret) { secret.file = folder.path() + "/key"; })).value == kCanary);
    CHECK(read(from_command("echo canary-0123456789")).value == kCanary);
    CHECK(read(from_command("printf canary-0123456789; sleep 0.1")).value == kCanary);
  }

  TEST_CASE("a command's environment is the server's") {
    ::setenv("TEST_SECRET", kCanary, 1);
    CHECK(read(from_command("echo \"$TEST_SECRET\"")).value == kCanary);
  }

  TEST_CASE("a command that leaves something in the background that holds its output has ended") {
    const auto begin = std::chrono::steady_clock::now();
    CHECK(read(from_command("sleep 30 & echo canary-0123456789")).value == kCanary);
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(9));
  }

  TEST_CASE("what is missing is said with where to look") {
    const Outcome variable = read(with([](auto& secret) { secret.env = "TEST_NO_SUCH"; }));
    CHECK_CONTAINS(variable.error, "TEST_NO_SUCH is not set");
    CHECK_CONTAINS(variable.error, "secrets.KEY.env");
    CHECK_CONTAINS(read(with([](auto& secret) { secret.file = "/nowhere/key"; })).error, "/nowhere/key");
    CHECK_CONTAINS(read(with([](auto& secret) { secret.file = "/tmp"; })).error, "not a plain file");
    CHECK_CONTAINS(read(with([](auto& secret) {
                     secret.command = {"no-such-program", kCanary};
                   })).error,
                   "'no-such-program' is not there");
  }

  TEST_CASE("a pipe in place of a file is refused at once") {
    test::ScratchFolder folder;
    const std::string path = folder.path() + "/pipe";
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    CHECK_CONTAINS(read(with([&](auto& secret) { secret.file = path; })).error, "not a plain file");
  }

  TEST_CASE("a command that fails is an error with its exit code, and nothing of what it said") {
    const Outcome failed = read(from_command("echo canary-0123456789; echo canary-0123456789 >&2; exit 3"));
    CHECK_CONTAINS(failed.error, "exit code 3");
    CHECK_CONTAINS(failed.error, "reading the secret KEY");
    CHECK_FALSE(contains(failed.error, kCanary));
    CHECK_CONTAINS(read(from_command("kill -9 $$")).error, "signal 9");
  }

  TEST_CASE("a command that prints nothing, too little, too much or lines is an error") {
    CHECK_CONTAINS(read(from_command("true")).error, "empty");
    CHECK_CONTAINS(read(from_command("echo")).error, "empty");
    CHECK_CONTAINS(read(from_command("echo 1234567")).error, "shorter than 8");
    CHECK_CONTAINS(read(from_command("head -c 1000000 /dev/zero | tr '\\0' x")).error, "longer than 16384");
    CHECK_CONTAINS(read(from_command("head -c 16385 /dev/zero | tr '\\0' x")).error, "longer than 16384");
    CHECK(read(from_command("head -c 16384 /dev/zero | tr '\\0' x; echo")).value.size() == 16384);
    for (const char* text : {"canary-01\\n23456789", "canary-01\\r23456789", "canary-01\\00023456789"}) {
      const Outcome outcome = read(from_command(fmt::format("printf '{}'", text)));
      CHECK_CONTAINS(outcome.error, "line break or a NUL");
      CHECK_FALSE(contains(outcome.error, "canary"));
    }
  }

  TEST_CASE("a command that hangs is killed after ten seconds, with what it started") {
    test::ScratchFolder folder;
    const std::string pid_file = folder.path() + "/pid";
    const Outcome outcome = read(from_command("sleep 1000 & echo $! > " + pid_file + "; wait"));
    CHECK_CONTAINS(outcome.error, "has not ended within 10 s");
    const pid_t left = std::stoi(sys::read_file(pid_file));
    bool gone = false;  // init has to reap it yet
    for (int i = 0; i < 1000 && !gone; ++i) {
      gone = ::kill(left, 0) != 0 || contains(sys::read_file(fmt::format("/proc/{}/stat", left)), ") Z");
      ::usleep(10'000);
    }
    CHECK(gone);
  }

  TEST_CASE("a value is read once, however many ask; a failure is not kept") {
    test::ScratchFolder folder;
    const std::string runs = folder.path() + "/runs";
    asio::io_context io;
    net::SecretStore store({{"KEY", from_command("echo x >> " + runs + "; sleep 0.1; test -e " +
                                                 folder.path() + "/ready && echo canary-0123456789")}});
    int failures = 0, values = 0;
    const auto ask = [&]() -> asio::awaitable<void> {
      try {
        values += (co_await store.value("KEY"))->reveal() == kCanary ? 1 : 0;
      } catch (const Error&) {
        ++failures;
      }
    };
    CHECK(store.known("KEY") == nullptr);
    test::run(io, {ask, ask, ask});
    CHECK(failures == 3);
    CHECK(sys::read_file(runs) == "x\n");
    sys::write_file(folder.path() + "/ready", "");
    test::run(io, {ask, ask, ask});
    test::run(io, {ask});
    CHECK(values == 4);
    CHECK(sys::read_file(runs) == "x\nx\n");
    CHECK(store.known("KEY") != nullptr);
  }

  TEST_CASE("a process that has secrets leaves no core file and cannot be traced") {
    net::SecretStore store({{"KEY", from_command("true")}});
    CHECK(::prctl(PR_GET_DUMPABLE) == 0);
  }

  TEST_CASE("each sandbox has placeholders of its own, which say whose they are") {
    const auto first = net::Secrets::new_environment({"A_KEY", "B_KEY"}),
               second = net::Secrets::new_environment({"A_KEY"});
    REQUIRE(first.size() == 2);
    CHECK(first.at("A_KEY").starts_with("hutch-secret-A_KEY-"));
    CHECK(first.at("A_KEY").size() == std::string("hutch-secret-A_KEY-").size() + 32);
    CHECK(first.at("A_KEY") != second.at("A_KEY"));
  }

  TEST_CASE("a secret goes to its hosts and ports only") {
    CHECK(net::host_matches("api.test", "api.test", 443));
    CHECK(net::host_matches("API.test", "api.TEST", 443));
    CHECK_FALSE(net::host_matches("api.test", "api.test", 8443));
    CHECK(net::host_matches("api.test:8443", "api.test", 8443));
    CHECK_FALSE(net::host_matches("api.test:8443", "api.test", 443));
    CHECK_FALSE(net::host_matches("api.test", "evil-api.test", 443));
    CHECK_FALSE(net::host_matches("api.test", "x.api.test", 443));
    CHECK(net::host_matches("*.api.test", "x.api.test", 443));
    CHECK(net::host_matches("*.api.test:1", "y.x.api.test", 1));
    CHECK_FALSE(net::host_matches("*.api.test", "api.test", 443));
    CHECK_FALSE(net::host_matches("*.api.test", "evilapi.test", 443));
    CHECK_FALSE(net::host_matches("*.api.test", ".api.test", 443));
  }

  TEST_CASE("what the configuration no longer has is left out for a sandbox that was made with it") {
    const auto store = std::make_shared<net::SecretStore>(
        std::map<std::string, config::Secret>{{"KEY", from_command("true")}});
    const net::Secrets secrets(store, net::Secrets::new_environment({"KEY", "GONE"}));
    CHECK(secrets.applies_to("api.test", 443));
    CHECK_FALSE(secrets.applies_to("api.test", 80));
    REQUIRE(secrets.uses_for("api.test", 443).size() == 1);
    CHECK(secrets.uses_for("api.test", 443)[0].name == "KEY");
    CHECK(secrets.environment().size() == 2);
  }

  TEST_CASE("a configuration says every mistake about its secrets") {
    const std::string text = problems_of(
        "secrets:\n"
        "  no-name: {env: X, hosts: [api.test]}\n"
        "  NOWHERE: {hosts: [api.test]}\n"
        "  TWICE: {env: X, file: /x, hosts: [api.test]}\n"
        "  FORM: {env: X, hosts: [api.test], form: header}\n"
        "  QUERY: {env: X, hosts: [api.test], parameter: key}\n"
        "  LINE: {env: X, hosts: [api.test], form: header, header: 'A: b'}\n"
        "  HOSTS: {env: X, hosts: ['*', 'a..b', '10.0.0.1', 'https://a.test', 'a.test:0', 'a.test:65536', "
        "'*.a.test:9']}\n"
        "profiles:\n"
        "  default: {secrets: [OTHER]}\n"
        "  closed: {network: none, secrets: [TWICE]}\n");
    for (const char* part :
         {"'secrets.no-name' is no name", "'secrets.NOWHERE' needs one of", "'secrets.TWICE' needs one of",
          "'secrets.FORM.header' belongs", "'secrets.QUERY.parameter' belongs", "'secrets.LINE' has a header",
          "'secrets.HOSTS.hosts[0]'", "'secrets.HOSTS.hosts[1]'", "'secrets.HOSTS.hosts[2]'",
          "'secrets.HOSTS.hosts[3]'", "'secrets.HOSTS.hosts[4]'", "'secrets.HOSTS.hosts[5]'",
          "names no secret: 'OTHER'", "'profiles.closed.secrets' need the network `filtered`"})
      CHECK_CONTAINS(text, part);
    CHECK_FALSE(contains(text, "hosts[6]"));
  }
}
