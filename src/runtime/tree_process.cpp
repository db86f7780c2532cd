#include "runtime/tree_process.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/sys.h"

namespace hutch::runtime {

namespace {

constexpr int kTreeFd = 3, kReportFd = 4, kPipeBytes = 1 << 20;

nlohmann::json do_task(const std::vector<std::string>& words, bool trusted, bool is_root) {
  const std::string& task = words.at(0);
  const uint64_t number = std::stoull(words.at(1));
  if (task == "unpack") {
    const Unpacked done = unpack_tree(
        STDIN_FILENO, kTreeFd,
        {.prefix = words.at(2), .max_bytes = number, .keep_owners = is_root, .trusted_marks = trusted});
    return {{"entries", done.entries},
            {"owners_lost", done.owners_lost},
            {"attributes_dropped", done.attributes_dropped}};
  }
  const Packed done =
      pack_tree(kTreeFd, task == "count" ? -1 : STDOUT_FILENO,
                {.prefix = words.at(2), .first_id = static_cast<uint32_t>(number), .trusted_marks = trusted});
  return {{"entries", done.entries}, {"bytes", done.bytes}, {"left_out", done.left_out}};
}

void become_root_of_own_files() {
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWUSER) != 0) throw sys_error(errno, "unshare", "user namespace");
  sys::write_file("/proc/self/setgroups", "deny");
  sys::write_file("/proc/self/uid_map", fmt::format("0 {} 1", uid));
  sys::write_file("/proc/self/gid_map", fmt::format("0 {} 1", gid));
}

void see_only_the_tree() {
  if (::fchdir(kTreeFd) != 0) throw sys_error(errno, "chdir", "the tree");
  if (::chroot(".") != 0) throw sys_error(errno, "chroot", "the tree");
}

}  // namespace

TreeProcess::TreeProcess(int tree, int in, int out, const std::vector<std::string>& words) {
  sys::Pipe report = sys::pipe();
  std::vector<std::string> argv{"/proc/self/exe", kTreeMode};
  argv.insert(argv.end(), words.begin(), words.end());
  process_ = Process::spawn({.argv = argv,
                             .env = {},
                             .stdio = {in, out, -1},
                             .fds = {{tree, kTreeFd}, {report.write_end.get(), kReportFd}}});
  report_ = std::move(report.read_end);
}

TreeProcess TreeProcess::count(int tree, uint32_t first_id) {
  return {tree, -1, -1, {"count", std::to_string(first_id), ""}};
}

TreeProcess TreeProcess::pack(int tree, int out, const std::string& prefix, uint32_t first_id) {
  return {tree, -1, out, {"pack", std::to_string(first_id), prefix}};
}

void TreeProcess::pack_to(const std::function<void(std::string_view)>& sink, int tree,
                          const std::string& prefix, uint32_t first_id) {
  sys::Pipe stream = sys::pipe();
  ::fcntl(stream.read_end.get(), F_SETPIPE_SZ, kPipeBytes);  // an optimisation
  TreeProcess packer = pack(tree, stream.write_end.get(), prefix, first_id);
  stream.write_end.reset();
  std::string buffer(kPipeBytes, '\0');
  for (;;) {
    const ssize_t n =
        sys::retry_eintr([&] { return ::read(stream.read_end.get(), buffer.data(), buffer.size()); });
    if (n < 0) throw sys_error(errno, "read", "a layer");
    if (n == 0) break;
    sink({buffer.data(), static_cast<size_t>(n)});
  }
  (void)packer.wait();
}

TreeProcess TreeProcess::unpack(int tree, int in, const std::string& prefix, uint64_t max_bytes) {
  return {tree, in, -1, {"unpack", std::to_string(max_bytes), prefix}};
}

TreeProcess::Report TreeProcess::wait() {
  const std::string said = sys::read_all(report_.get(), 1 << 20);
  (void)process_.wait(Clock::now() + std::chrono::minutes(1));
  nlohmann::json report = nlohmann::json::parse(said, nullptr, false);
  if (!report.is_object())
    throw Error(Errc::internal, "the process that reads or writes a layer's files has ended without a word");
  if (report.contains("problem")) {
    Error problem = Error(static_cast<Errc>(report.value("code", static_cast<int>(Errc::internal))),
                          report.value("problem", ""))
                        .with_os_error(report.value("errno", 0));
    for (const auto& step : report.value("steps", std::vector<std::string>{})) problem.during(step);
    throw problem;
  }
  const auto number = [&](const char* name) { return report.value(name, uint64_t{0}); };
  return {{number("entries"), number("bytes"), number("left_out")},
          {number("entries"), number("owners_lost"), number("attributes_dropped")}};
}

int run_tree_process(const std::vector<std::string>& words) noexcept {
  nlohmann::json report;
  try {
    ::umask(0);
    const bool is_root = ::geteuid() == 0;
    if (!is_root) become_root_of_own_files();
    const bool trusted = LayerMarks::are_trusted();
    see_only_the_tree();
    report = do_task(words, trusted, is_root);
  } catch (const Error& e) {
    report = {{"problem", e.what()}, {"code", e.code()}, {"errno", e.os_error()}, {"steps", e.steps()}};
  } catch (const std::exception& e) {
    report = {{"problem", e.what()}};
  }
  const std::string text = report.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return ::write(kReportFd, text.data(), text.size()) < 0 ? 1 : 0;
}

}  // namespace hutch::runtime
