#include "runtime/stage_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include "base/sys.h"
#include "runtime/embedded.h"

namespace hutch::runtime {

namespace {

constexpr size_t kSaidBytes = 2000;

UniqueFd memory_file(const char* name, const std::string& content = "") {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC));
  if (!fd) throw sys_error(errno, "memfd_create");
  sys::write_all(fd.get(), content);
  ::lseek(fd.get(), 0, SEEK_SET);
  return fd;
}

/// From the start, wherever its writers, who may share our file offset, have left that.
std::string content_of(const UniqueFd& fd) {
  ::lseek(fd.get(), 0, SEEK_SET);
  return sys::read_all(fd.get(), 1 << 20);
}

Error runtime_failed(const ExitStatus& end, std::string said) {
  if (said.size() > kSaidBytes) said.erase(0, said.size() - kSaidBytes);
  return Error(Errc::unavailable, fmt::format("the OCI runtime ended with {}: {}",
                                              end.signal != 0 ? fmt::format("signal {}", end.signal)
                                                              : fmt::format("exit code {}", end.code),
                                              said.empty() ? "it said nothing" : said))
      .hint("hutch doctor says what this host can do");
}

}  // namespace

std::string StageProcess::program(const std::string& data_folder) {
  const std::lock_guard lock(mutex_);
  if (!memory_) {
    const UniqueFd fd = program_memory(stage_program());
    if (!fd) return program_file(stage_program(), data_folder + "/stage");
    // Above the numbers that the child's own descriptors get before its exec.
    memory_ = UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, kStageFirstFd + kMostStageFds));
    if (!memory_) throw sys_error(errno, "dup", "hutch-stage");
  }
  return fmt::format("/proc/self/fd/{}", memory_.get());
}

Process StageProcess::spawn(const StagePlan& plan, const std::string& data_folder, std::array<int, 3> stdio,
                            std::vector<std::pair<int, int>> fds) {
  const UniqueFd plan_fd = memory_file("hutch-plan", plan.encoded());
  fds.emplace_back(plan_fd.get(), kStagePlanFd);
  for (size_t i = 0; i < plan.fds().size(); ++i)
    fds.emplace_back(plan.fds()[i].get(), kStageFirstFd + static_cast<int>(i));
  return Process::spawn({.argv = {program(data_folder)}, .env = {}, .stdio = stdio, .fds = std::move(fds)});
}

StageProcess::Tool StageProcess::start_tool(const StagePlan& plan, const std::string& data_folder,
                                            const UniqueFd& output) {
  sys::Pipe status = sys::pipe();
  Process process =
      spawn(plan, data_folder, {-1, output.get(), output.get()}, {{status.write_end.get(), kStageStatusFd}});
  return {std::move(process), std::move(status.read_end)};
}

std::string StageProcess::run(const StagePlan& plan, const std::string& data_folder,
                              Clock::time_point deadline, const std::function<void()>& meanwhile) {
  const UniqueFd log = memory_file("hutch-log"), pid = memory_file("hutch-pid");
  // Our copy of the read end of `go` stays open, so that a stage that has failed already makes no SIGPIPE.
  sys::Pipe status = sys::pipe(), go = sys::pipe();
  Process stage = spawn(
      plan, data_folder, {-1, -1, log.get()},
      {{status.write_end.get(), kStageStatusFd}, {go.read_end.get(), kStageGoFd}, {pid.get(), kStagePidFd}});
  meanwhile();
  sys::write_all(go.write_end.get(), "g");
  status.write_end.reset();
  ExitStatus end;
  try {
    end = stage.wait(deadline);
  } catch (Error& e) {
    e.during("starting the sandbox's container");
    throw;
  }
  const std::string problem = sys::read_all(status.read_end.get(), 64 << 10);
  if (!problem.empty() && end.code == kStageRefused) throw Error(Errc::invalid_argument, problem);
  if (!problem.empty())
    throw Error(Errc::unavailable, problem).hint("hutch doctor says what this host can do");
  if (!end.ok()) throw runtime_failed(end, content_of(log));
  return content_of(pid);
}

}  // namespace hutch::runtime
