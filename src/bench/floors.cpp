#include "bench/floors.h"

#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/sys.h"
#include "bench/mcp_client.h"

namespace hutch::bench {

namespace {

Json spawn(const Plan& plan, const std::string& name, const std::vector<std::string>& arguments) {
  std::vector<std::string> argv{program_as_inside(name)};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return measure(run_process(argv, own_environment()), plan);
}

Json spawn_true(const Plan& plan) {
  return spawn(plan, "true", {});
}
Json spawn_sh(const Plan& plan) {
  return spawn(plan, "sh", {"-c", "true"});
}
Json spawn_python(const Plan& plan) {
  return spawn(plan, "python3", {"-c", "pass"});
}

/// `count` processes of true, all started before the first is waited for.
Json spawn_side_by_side(const Plan& plan, size_t count) {
  const SpawnOptions options{
      .argv = {program_as_inside("true")}, .env = own_environment(), .stdio = {-1, -1, -1}, .fds = {}};
  const auto run = [&] {
    const auto start = Clock::now();
    std::vector<Process> processes;
    for (size_t i = 0; i < count; ++i) processes.push_back(Process::spawn(options));
    for (auto& process : processes) (void)process.wait(start + std::chrono::seconds(60));
    return ms_since(start);
  };
  return measure({.run = run}, plan);
}

Json spawn_10(const Plan& plan) {
  return spawn_side_by_side(plan, 10);
}
Json spawn_100(const Plan& plan) {
  return spawn_side_by_side(plan, 100);
}

Json clone_namespaces(const Plan& plan) {
  constexpr unsigned long kAllSeven = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID |
                                      CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_NEWUSER;
  const auto run = [] {
    const auto start = Clock::now();
    const long pid = ::syscall(SYS_clone, kAllSeven | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (pid == 0) ::_exit(0);
    if (pid < 0) throw sys_error(errno, "clone", "all seven namespaces");
    (void)sys::retry_eintr([&] { return ::waitpid(static_cast<pid_t>(pid), nullptr, 0); });
    return ms_since(start);
  };
  return measure({.run = run}, plan);
}

/// A forked child that runs `serve` until its input ends. Reaped by the destructor, which must come after the
/// parent has closed its ends.
class Child {
 public:
  template <class Serve>
  explicit Child(Serve serve) : pid_(::fork()) {
    if (pid_ < 0) throw sys_error(errno, "fork");
    if (pid_ != 0) return;
    try {
      serve();
    } catch (...) {
      // Nothing of the parent's may run in the child.
    }
    ::_exit(0);
  }
  ~Child() {
    (void)sys::retry_eintr([&] { return ::waitpid(pid_, nullptr, 0); });
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

 private:
  pid_t pid_;
};

/// One byte there and one back between two processes.
Json socketpair_round_trip(const Plan& plan) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw sys_error(errno, "socketpair");
  UniqueFd theirs(ends[1]), held(ends[0]);
  const Child child([&] {
    held.reset();
    char byte = 0;
    while (::read(theirs.get(), &byte, 1) == 1 && ::write(theirs.get(), &byte, 1) == 1) continue;
  });
  theirs.reset();
  // After `child`, so closed before it is waited for.
  const UniqueFd ours = std::move(held);
  const auto run = [&] {
    char byte = 'x';
    const auto start = Clock::now();
    if (::write(ours.get(), &byte, 1) != 1 || ::read(ours.get(), &byte, 1) != 1)
      throw Error(Errc::internal, "the child has ended");
    return ms_since(start);
  };
  return measure({.run = run}, plan);
}

void echo_json(int in, int out) {
  std::string buffer;
  char chunk[4096];
  for (ssize_t n = 0; (n = ::read(in, chunk, sizeof chunk)) > 0;) {
    buffer.append(chunk, static_cast<size_t>(n));
    if (buffer.back() != '\n') continue;
    const Json request = Json::parse(buffer);
    buffer.clear();
    const Json answer = {{"jsonrpc", "2.0"}, {"id", request.at("id")}, {"result", Json::object()}};
    sys::write_all(out, answer.dump() + "\n");
  }
}

/// A `ping` as a server with no other work could answer it.
Json json_echo(const Plan& plan) {
  sys::Pipe there = sys::pipe(), back = sys::pipe();
  const Child child([&] {
    there.write_end.reset();
    back.read_end.reset();
    echo_json(there.read_end.get(), back.write_end.get());
  });
  // After `child`, so closed before it is waited for.
  const UniqueFd out = std::move(there.write_end), in = std::move(back.read_end);
  there.read_end.reset();
  back.write_end.reset();
  const Request ping("ping", Json::object());
  int64_t id = 0;
  const auto run = [&] {
    const std::string line = ping.line(id++);
    char answer[512];
    const auto start = Clock::now();
    sys::write_all(out.get(), line);
    for (ssize_t size = 0; size == 0 || answer[size - 1] != '\n';) {
      const ssize_t n = ::read(in.get(), answer + size, sizeof answer - static_cast<size_t>(size));
      if (n <= 0) throw Error(Errc::internal, "the child has ended");
      size += n;
    }
    return ms_since(start);
  };
  return measure({.run = run}, plan);
}

}  // namespace

const std::vector<Floor>& floors() {
  static const std::vector<Floor> list = {
      {"floor_spawn_true", "posix_spawn of true, to its end", spawn_true},
      {"floor_spawn_sh", "posix_spawn of sh -c true, to its end", spawn_sh},
      {"floor_spawn_python", "posix_spawn of python3 -c pass, to its end", spawn_python},
      {"floor_clone", "clone with all seven namespaces, to its end", clone_namespaces},
      {"floor_socketpair", "one byte to another process and back", socketpair_round_trip},
      {"floor_json_echo", "a JSON line to another process and back", json_echo},
      {"floor_spawn_10", "10 posix_spawns of true side by side", spawn_10},
      {"floor_spawn_100", "100 posix_spawns of true side by side", spawn_100},
  };
  return list;
}

}  // namespace hutch::bench
