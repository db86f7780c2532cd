#include <fmt/format.h>

#include <cstdlib>

#include "bench/scenarios.h"

namespace hutch::bench {

namespace {

/// Only what a server needs: nothing that the user has set for hutch changes what is measured.
std::vector<std::string> base_environment(const std::string& home) {
  std::vector<std::string> env{"HUTCH_HOME=" + home, "HOME=" + home};
  for (const char* name : {"PATH", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"})
    if (const char* value = std::getenv(name); value != nullptr)
      env.push_back(fmt::format("{}={}", name, value));
  return env;
}

}  // namespace

ServerCommand Context::server(const std::vector<std::string>& settings) const {
  ServerCommand command{{program, "mcp"}, base_environment(home)};
  for (const auto& setting : settings) command.env.push_back("HUTCH_" + setting);
  return command;
}

ServerCommand Context::cold_server() const {
  return server(can_empty_pool ? std::vector<std::string>{"POOL__MAX=0"} : std::vector<std::string>{});
}

Context make_context(std::string program, std::string home, Plan plan, std::vector<Peer> relays) {
  Context context{std::move(program), std::move(home), std::move(plan), std::move(relays)};
  std::vector<std::string> env = base_environment(context.home);
  env.push_back("HUTCH_POOL__MAX=0");
  Process asked =
      Process::spawn({.argv = {context.program, "config"}, .env = env, .stdio = {-1, -1, -1}, .fds = {}});
  context.can_empty_pool = asked.wait(Clock::now() + std::chrono::seconds(60)).ok();
  return context;
}

}  // namespace hutch::bench
