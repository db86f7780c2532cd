#include "runtime/stage.h"

#include "base/error.h"

namespace hutch::runtime {

namespace {

constexpr size_t kStepBytes = 500;  // a step may carry a whole file

}  // namespace

void StagePlan::add(const std::vector<std::string>& words) {
  encoded_ += std::to_string(words.size()) + '\0';
  for (const auto& word : words) {
    if (word.find('\0') != std::string::npos) throw Error(Errc::invalid_argument, "NUL byte in a stage plan");
    encoded_ += word + '\0';
  }
}

void StagePlan::make_dir(const std::string& path, uint32_t mode, uint32_t owner) {
  add({"dir", path, std::to_string(mode), std::to_string(owner)});
}

void StagePlan::enter_user_namespace(const std::vector<std::string>& caps) {
  std::vector<std::string> words{"user_namespace"};
  words.insert(words.end(), caps.begin(), caps.end());
  add(words);
}

void StagePlan::id_range(uint32_t first_id, uint32_t count, const std::string& path,
                         const std::vector<std::string>& caps) {
  std::vector<std::string> words{"id_range", std::to_string(first_id), std::to_string(count), path};
  words.insert(words.end(), caps.begin(), caps.end());
  add(words);
}

std::string StagePlan::give(UniqueFd fd) {
  if (fds_.size() == static_cast<size_t>(kMostStageFds))
    throw Error(Errc::limit_exceeded, "too many layers for one sandbox");
  fds_.push_back(std::move(fd));
  return std::to_string(kStageFirstFd + static_cast<int>(fds_.size()) - 1);
}

void StagePlan::enter(UniqueFd mount_namespace, UniqueFd user_namespace, UniqueFd root) {
  const std::string mounts = give(std::move(mount_namespace)), users = give(std::move(user_namespace));
  add({"enter", mounts, users, give(std::move(root))});
}

void StagePlan::attach_network(UniqueFd agent, UniqueFd user_namespace, UniqueFd network_namespace,
                               const std::string& pasta, const std::vector<std::string>& allow) {
  std::vector<std::string> words{"network"};
  for (UniqueFd* fd : {&agent, &user_namespace, &network_namespace}) words.push_back(give(std::move(*fd)));
  words.push_back(pasta);
  words.insert(words.end(), allow.begin(), allow.end());
  add(words);
}

void StagePlan::attach_volume(UniqueFd mount, const std::string& root, const std::string& target,
                              bool read_only, uint32_t owner) {
  add({"attach_volume", give(std::move(mount)), root, target, read_only ? "ro" : "rw",
       std::to_string(owner)});
}

void StagePlan::bind_volume(const std::string& source, const std::string& root, const std::string& target,
                            bool read_only, uint32_t owner) {
  add({"bind_volume", source, root, target, read_only ? "ro" : "rw", std::to_string(owner)});
}

void StagePlan::attach(UniqueFd mount, const std::string& target) {
  add({"attach", give(std::move(mount)), target});
}

void StagePlan::attach_layer(UniqueFd mount, const std::string& target, uint32_t first_id_on_disk) {
  add({"attach_layer", give(std::move(mount)), target, std::to_string(first_id_on_disk)});
}

void StagePlan::bind_layer(const std::string& source, const std::string& target, uint32_t first_id_on_disk) {
  add({"bind_layer", source, target, std::to_string(first_id_on_disk)});
}

void StagePlan::change_dir(UniqueFd folder) {
  add({"change_dir", give(std::move(folder))});
}

void StagePlan::mount_overlay(const std::vector<std::string>& lowers, const std::string& upper,
                              const std::string& work, const std::string& target) {
  std::string stack;
  for (const auto& lower : lowers) stack += (stack.empty() ? "" : ":") + lower;
  add({"overlay", stack, upper, work, target});
}

void StagePlan::open_fd(int fd, const std::string& path, const std::string& mode) {
  add({"open", std::to_string(fd), path, mode});
}

void StagePlan::exec(const std::vector<std::string>& argv) {
  std::vector<std::string> words{"exec"};
  words.insert(words.end(), argv.begin(), argv.end());
  add(words);
}

void StagePlan::exec_tool(pid_t parent, const std::vector<std::string>& argv,
                          const std::vector<std::string>& env) {
  std::vector<std::string> words{"exec_tool", std::to_string(parent), std::to_string(env.size())};
  words.insert(words.end(), env.begin(), env.end());
  words.insert(words.end(), argv.begin(), argv.end());
  add(words);
}

std::vector<StageStep> parse_stage_plan(const std::string& encoded) {
  std::vector<std::string> parts;
  for (size_t at = 0, end = 0; (end = encoded.find('\0', at)) != std::string::npos; at = end + 1)
    parts.push_back(encoded.substr(at, end - at));
  std::vector<StageStep> steps;
  for (size_t i = 0; i < parts.size();) {
    const size_t count = std::stoul(parts[i++]);
    if (count == 0 || count > parts.size() - i) throw Error(Errc::internal, "broken stage plan");
    steps.emplace_back(parts.begin() + static_cast<long>(i), parts.begin() + static_cast<long>(i + count));
    i += count;
  }
  return steps;
}

std::string stage_step_text(const StageStep& step) {
  if (step.at(0) == "exec_tool")  // its environment may hold the password of a proxy
    return "exec_tool " + step.at(3 + std::stoul(step.at(2)));
  std::string out;
  for (const auto& word : step) {
    if (!out.empty()) out += ' ';
    out += word.size() <= kStepBytes ? word : word.substr(0, kStepBytes) + "...";
  }
  return out;
}

std::string StagePlan::to_text() const {
  std::string out;
  for (const auto& step : parse_stage_plan(encoded_)) out += stage_step_text(step) + "\n";
  return out;
}

}  // namespace hutch::runtime
