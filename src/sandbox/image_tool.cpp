#include "sandbox/image_tool.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "base/sys.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr size_t kSaidBytes = 4000, kLongestLine = 2000;
constexpr auto kLook = 200ms;  // between two looks at what it takes

/// What these programs take from the environment: where credentials lie, and the way out to the network.
std::vector<std::string> tool_environment(const std::string& work) {
  std::vector<std::string> env{"TMPDIR=" + work};
  for (const char* name :
       {"PATH", "HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG",
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy",
        "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"})
    if (const char* value = std::getenv(name)) env.push_back(fmt::format("{}={}", name, value));
  return env;
}

/// What it said, cut into lines, of which the end is kept.
class Said {
 public:
  explicit Said(Progress line) : line_(std::move(line)) {}

  void add(std::string_view bytes) {
    text_ += bytes;
    if (text_.size() > 2 * kSaidBytes) text_.erase(0, text_.size() - kSaidBytes);
    for (const char c : bytes) {
      if (c != '\n' && c != '\r') {
        if (current_.size() < kLongestLine) current_ += c;
        continue;
      }
      if (line_ && !current_.empty()) line_(current_);
      current_.clear();
    }
  }
  std::string text() && { return std::move(text_); }

 private:
  const Progress line_;
  std::string text_, current_;
};

Error too_large(const ImageBounds& bounds) {
  return Error(Errc::limit_exceeded,
               fmt::format("the image is larger than {} bytes, which one may take at most", bounds.max_bytes))
      .hint("raise `images.max_size` in the configuration, if you trust it");
}

void check_bounds(const ImageTool& tool, const ImageBounds& bounds) {
  if (bounds.stop.stop_requested()) throw Error(Errc::conflict, tool.program + " was stopped: cancelled");
  if (Clock::now() > bounds.deadline)
    throw Error(Errc::timeout, tool.program + " did not get done in time")
        .hint("raise `images.pull_timeout_s` in the configuration, when it is only slow");
  uint64_t bytes = 0;
  for (const auto& folder : tool.grows) bytes += sys::tree_bytes(folder);
  if (bytes > bounds.max_bytes) throw too_large(bounds);
}

}  // namespace

std::string find_image_tool(const std::string& program) {
  std::string path = find_program(program);
  if (path.empty())
    throw Error(Errc::unavailable, program + " is not installed").hint("apt-get install " + program);
  return path;
}

std::string run_image_tool(ImageTool tool, runtime::StageProcess& stage, const std::string& data_folder,
                           const ImageBounds& bounds) {
  std::vector<std::string> argv{find_image_tool(tool.program)};
  argv.insert(argv.end(), tool.arguments.begin(), tool.arguments.end());
  // Of single files the kernel keeps it, at once.
  tool.before.limit(RLIMIT_FSIZE, bounds.max_bytes);
  if (!tool.output.empty()) tool.before.open_fd(STDOUT_FILENO, tool.output, "w");
  // In a PID namespace, which only root can have without a user namespace.
  const bool alone = tool.has_children && ::geteuid() == 0;
  if (alone) {
    tool.before.private_mounts();
    tool.before.enter_pid_namespace(::getpid());
  }
  auto env = tool_environment(tool.work);
  env.insert(env.end(), tool.env.begin(), tool.env.end());
  tool.before.exec_tool(alone ? 0 : ::getpid(), argv, env);
  sys::Pipe output = sys::pipe();
  auto running = stage.start_tool(tool.before, data_folder, output.write_end);
  output.write_end.reset();
  Said said(tool.line);
  auto next_look = Clock::now();
  for (bool ended = false; !ended;) {
    pollfd ready{.fd = output.read_end.get(), .events = POLLIN, .revents = 0};
    (void)::poll(&ready, 1, static_cast<int>(std::chrono::milliseconds(kLook).count()));
    if (ready.revents != 0) {
      std::array<char, 16384> chunk;
      const ssize_t n = ::read(output.read_end.get(), chunk.data(), chunk.size());
      if (n > 0) said.add({chunk.data(), static_cast<size_t>(n)});
      ended = n == 0;
    }
    if (Clock::now() < next_look) continue;
    check_bounds(tool, bounds);
    next_look = Clock::now() + kLook;
  }
  const ExitStatus end = running.process.wait(bounds.deadline);
  std::string text = std::move(said).text();
  if (const std::string problem = sys::read_all(running.status.get(), 64 << 10); !problem.empty())
    throw Error(Errc::unavailable, problem);
  if (!end.ok() && (end.signal == SIGXFSZ || text.find("file too large") != text.npos))
    throw too_large(bounds);
  if (!end.ok())
    throw Error(Errc::unavailable, fmt::format("{} ended with {}: {}", tool.program,
                                               end.signal != 0 ? fmt::format("signal {}", end.signal)
                                                               : fmt::format("exit code {}", end.code),
                                               text.empty() ? "it said nothing" : text));
  return text;
}

}  // namespace hutch::sandbox
