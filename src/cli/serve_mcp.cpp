#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/control.h"
#include "mcp/server.h"
#include "rpc/claim_stdio.h"
#include "sandbox/manager.h"
#include "tools/asking_run.h"
#include "tools/resources.h"
#include "tools/services.h"

namespace hutch::cli {

using namespace std::chrono_literals;

namespace {

constexpr const char* kInstructions =
    "hutch runs code in isolated Linux sandboxes on this machine. Use it for anything that executes code, "
    "builds, tests or installs: what runs there cannot touch the user's files, processes or network.\n"
    "Start right away: sandbox_exec, sandbox_eval and the file tools work without sandbox_id, in a default "
    "sandbox that is made at the first call and stays for this session. sandbox_create makes further ones, "
    "separate or with other limits.\n"
    "A sandbox has the programs of the host (in /usr) and /workspace to work in. Files stay between calls; "
    "shell "
    "state does not, unless sandbox_eval is given a `session`, which keeps variables as a notebook does. The "
    "user's own files are not there: write what you need with sandbox_write_file. There is no network but "
    "what sandbox_create or sandbox_update allow.\n"
    "Servers and long jobs: sandbox_exec with `background`, then sandbox_process. Programs that ask "
    "questions or "
    "draw a screen: sandbox_exec with `tty` and `background`, then sandbox_process write, which returns the "
    "screen.\n"
    "A failing command is a normal result: read its exit code in the first line. Long output is cut in the "
    "middle, with the log file's name. Sandboxes end with the server or after 30 minutes without use, and "
    "their "
    "files with them: copy what matters into your answer or the user's files before.";

// A signal handler can reach nothing but a global; set once while the server runs.
std::atomic<mcp::Server*> running_server{nullptr};

void stop_server(int) {
  if (auto* server = running_server.load()) server->stop();
}

void stop_on_signals() {
  struct sigaction action {};
  action.sa_handler = stop_server;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) ::sigaction(signal, &action, nullptr);
}

mcp::ServerOptions server_options(const config::Limits& limits) {
  mcp::ServerOptions options;
  options.info = {.name = "hutch", .title = "hutch sandboxes", .version = version()};
  options.instructions = kInstructions;
  options.message_max_bytes = limits.message_max.value;
  options.json_depth = static_cast<size_t>(limits.json_depth);
  options.pending_requests = static_cast<size_t>(limits.pending_requests);
  options.worker_threads = static_cast<size_t>(limits.worker_threads);
  // Claude Code sends SIGKILL 500 ms after SIGINT: all of the end has to fit into 300 ms.
  options.finish_grace = 60ms;
  options.stop_grace = 40ms;
  return options;
}

}  // namespace

int serve_mcp(const Options& options) {
  rpc::Stdio stdio = rpc::claim_stdio();
  ::signal(SIGPIPE, SIG_IGN);
  const config::LoadedConfig settings = load_settings(options);
  const bool structured = settings.config.results == "structured";

  sandbox::Manager manager(settings.config, true);
  sandbox::Attachments attachments(manager);
  manager.answer_control(control_handler(manager, attachments));
  tools::AskingRuns asking;
  tools::Services services{.manager = manager, .merge_output = !structured, .asking = &asking};
  mcp::ToolRegistry registry(structured ? mcp::Results::structured : mcp::Results::text);
  tools::register_all(registry, services);
  registry.select(settings.config.toolsets);

  mcp::ResourceRegistry resources;
  tools::add_resources(resources, services, settings);

  mcp::Server server(registry, resources, server_options(settings.config.limits), stdio.in.get(),
                     stdio.out.get());
  running_server = &server;
  stop_on_signals();
  (void)server.run();
  manager.shutdown(Clock::now() + 120ms);
  // Not by return: the destructors would wait for calls that do not stop.
  ::_exit(0);
}

}  // namespace hutch::cli
