#include "bench/line_program.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/sys.h"
#include "bench/machine.h"

namespace hutch::bench {

using namespace std::chrono_literals;

namespace {

constexpr auto kAnswerPatience = 60s;
constexpr off_t kTailMax = 2000;

}  // namespace

std::string tail_of(const UniqueFd& file) {
  std::string text(kTailMax, '\0');
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  const ssize_t n = ::pread(file.get(), text.data(), text.size(), std::max<off_t>(0, size - kTailMax));
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text;
}

LineProgram::LineProgram(const ServerCommand& command)
    : name_(std::filesystem::path(command.argv.at(0)).filename()),
      stderr_(::memfd_create("stderr", MFD_CLOEXEC)) {
  sys::Pipe in = sys::pipe(), out = sys::pipe();
  to_ = std::move(in.write_end);
  from_ = std::move(out.read_end);
  started_ = Clock::now();
  process_ = Process::spawn({.argv = command.argv,
                             .env = command.env,
                             .stdio = {in.read_end.get(), out.write_end.get(), stderr_.get()},
                             .fds = {}});
}

LineProgram::~LineProgram() {
  to_.reset();
  try {
    (void)process_.wait(Clock::now() + 5s);
  } catch (const Error&) {
    // It does not want to: killed with `process_`.
  }
}

void LineProgram::fail(Errc code, const std::string& what) const {
  const std::string said = tail_of(stderr_);
  const std::string text = fmt::format("{} {}", name_, what);
  throw Error(code, said.empty() ? text : fmt::format("{}; its stderr ends with: {}", text, said));
}

void LineProgram::write(std::string_view line) {
  try {
    sys::write_all(to_.get(), line);
  } catch (const Error& e) {
    if (e.os_error() == EPIPE) fail(Errc::unavailable, "ended without an answer");
    throw;
  }
}

bool LineProgram::read_more(Clock::time_point deadline) {
  pollfd waiting{.fd = from_.get(), .events = POLLIN, .revents = 0};
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    const int n = ::poll(&waiting, 1, static_cast<int>(std::clamp<long>(left, 0, 1000)));
    if (n > 0) break;
    check_interrupted();
    if (n < 0 && errno != EINTR) throw sys_error(errno, "poll");
    if (n == 0 && left <= 0) return false;
  }
  const ssize_t n = sys::retry_eintr([&] { return ::read(from_.get(), chunk_.data(), chunk_.size()); });
  if (n <= 0) fail(Errc::unavailable, "ended without an answer");
  buffer_.append(chunk_.data(), static_cast<size_t>(n));
  return true;
}

std::optional<std::string> LineProgram::next_line(Clock::time_point deadline) {
  size_t end = 0;
  while ((end = buffer_.find('\n', scanned_)) == std::string::npos) {
    scanned_ = buffer_.size();
    if (!read_more(deadline)) return std::nullopt;
  }
  scanned_ = 0;
  if (end + 1 < buffer_.size()) {
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    return line;
  }
  buffer_.pop_back();  // as nearly always: nothing is copied
  return std::exchange(buffer_, {});
}

std::string LineProgram::ask(std::string_view line) {
  write(line);
  auto answer = next_line(Clock::now() + kAnswerPatience);
  if (!answer) fail(Errc::timeout, "has not answered for 60 s");
  return std::move(*answer);
}

}  // namespace hutch::bench
