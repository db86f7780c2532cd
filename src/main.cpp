#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/sys.h"
#include "cli/commands.h"
#include "runtime/tree_process.h"
#include "sandbox/bases.h"
#include "sandbox/store.h"

namespace {

using namespace hutch;

constexpr int kUsageError = 2, kFailure = 125;  // 125 as in env(1) and docker run: ours, not the command's

struct Verb {
  const char* name;
  const char* arguments;
  const char* help;
  std::vector<std::string> options;
  int (*run)(const cli::Options&);
  bool options_first = false;  // see parse_options()
};

int show_version(const cli::Options&) {
  fmt::print("hutch {}\n", cli::version());
  return 0;
}

std::vector<Verb> verbs_of_sandboxes() {
  return {
      {"mcp",
       "[--config FILE] [--results text|structured] [--toolsets NAME,...]",
       "serve the Model Context Protocol on stdin and stdout: what a host starts",
       {"config=", "results=", "toolsets="},
       cli::serve_mcp},
      {"run",
       "[--config FILE] [--profile NAME] -- COMMAND [ARGUMENT...]",
       "run one command in a fresh sandbox and pass on its output and exit code",
       {"config=", "profile="},
       cli::run_once},
      {"exec",
       "[-i] [-t] [--workdir DIR] [--env NAME=VALUE]... [--server ID] SANDBOX COMMAND [ARGUMENT...]",
       "run a command in a sandbox of a running server: -i passes input on, -t attaches your terminal",
       {"i", "t", "workdir=", "env=", "server=", "config="},
       cli::exec,
       true},
      {"ls",
       "[--all] [--server ID] [--config FILE] [--json]",
       "list the sandboxes of all running servers; --all: also those that have ended, and why",
       {"all", "server=", "config=", "json"},
       cli::ls},
      {"info",
       "[--server ID] [--config FILE] [--json] SANDBOX",
       "describe one sandbox: limits, isolation, use, processes; why it ended",
       {"server=", "config=", "json"},
       cli::info},
      {"rm",
       "[-f] [--server ID] [--config FILE] [--json] SANDBOX...|--all",
       "end sandboxes and delete their files; -f: one that is not there is no error",
       {"all", "f", "server=", "config=", "json"},
       cli::rm},
      {"stats",
       "[--watch] [--server ID] [--config FILE] [--json]",
       "show memory, disk and processor time of the host and of every sandbox; --watch: every 2 s",
       {"watch", "server=", "config=", "json"},
       cli::stats},
  };
}

std::vector<Verb> verbs_of_the_host() {
  return {
      {"doctor",
       "[--config FILE] [--json]",
       "say what this host can do, what is missing, and how to get it",
       {"config=", "json"},
       cli::doctor},
      {"config",
       "[--config FILE] [--json]",
       "show the settings in force and where each came from",
       {"config=", "json"},
       cli::show_config},
      {"gc",
       "[--all] [--config FILE] [--json]",
       "remove what dead servers have left; with --all also their sandboxes that live on",
       {"all", "config=", "json"},
       cli::gc},
      {"image",
       "pull [-f] NAME | import PATH --name NAME | build DIR --name NAME [--file DOCKERFILE] | ls | "
       "rm NAME|DIGEST | gc  [--config FILE] [--json]",
       "get root file systems from registries, archives, folders and Dockerfiles; pull -f: also one that is "
       "here",
       {"f", "name=", "file=", "config=", "json"},
       cli::image},
      {"pool",
       "status|flush [--config FILE] [--server ID] [--json]",
       "show the warm sandboxes of the running servers, or have them built anew",
       {"config=", "server=", "json"},
       cli::pool},
      {"volume",
       "ls | create NAME [--size 5g] | rm NAME... [--config FILE] [--json]",
       "show, make or delete the folders that outlive sandboxes",
       {"size=", "config=", "json"},
       cli::volume},
      {"template",
       "ls [--all] | rm NAME... | export NAME FILE | import FILE [--name NAME] [--overwrite] | "
       "build --name NAME [-f DOCKERFILE] [--overwrite] DIR  [--config FILE] [--json]",
       "list and remove saved states of sandboxes, carry one to another machine as a file (FILE - is a "
       "pipe), "
       "or make one from a Dockerfile; ls --all: also what setup commands of profiles have made",
       {"all", "name=", "f=", "file=", "overwrite", "config=", "json"},
       cli::templates},
      {"bench",
       "[--quick|--long] [--only NAME,...] [--peers FILE] [--json FILE]",
       "measure hutch as an MCP client sees it, the least this machine needs, and other programs",
       {"quick", "long", "only=", "peers=", "json="},
       cli::run_bench},
      {"version", "", "show the version", {}, show_version},
  };
}

const std::vector<Verb>& verbs() {
  static const std::vector<Verb> list = [] {
    std::vector<Verb> all = verbs_of_sandboxes();
    std::ranges::move(verbs_of_the_host(), std::back_inserter(all));
    return all;
  }();
  return list;
}

void print_help(std::FILE* out) {
  fmt::print(out, "hutch {}: sandboxes for AI agents, on this machine\n\n", cli::version());
  for (const auto& verb : verbs())
    fmt::print(out, "  hutch {} {}\n      {}\n", verb.name, verb.arguments, verb.help);
  fmt::print(out,
             "\nTry it:              hutch run -- python3 -c 'print(2+2)'\n"
             "For Claude Code:     claude mcp add hutch -- hutch mcp\n"
             "Settings:            hutch config\n");
}

int run(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "help";
  if (name == "help" || name == "--help" || name == "-h") {
    print_help(stdout);
    return 0;
  }
  if (name == "--version") return show_version({});
  for (const auto& verb : verbs()) {
    if (name != verb.name) continue;
    cli::Options options;
    try {
      options = cli::parse_options(argc - 2, argv + 2, verb.options, verb.options_first);
    } catch (const Error& e) {
      fmt::print(stderr, "hutch {}: {}\nusage: hutch {} {}\n", verb.name, error_text(e), verb.name,
                 verb.arguments);
      return kUsageError;
    }
    if (options.help) {
      fmt::print("usage: hutch {} {}\n{}\n", verb.name, verb.arguments, verb.help);
      return 0;
    }
    return verb.run(options);
  }
  fmt::print(stderr, "hutch: there is no command '{}'\n\n", name);
  print_help(stderr);
  return kUsageError;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    // A process that does nothing but this, see sandbox::Store::close().
    if (argc == 3 && std::string_view(argv[1]) == "--remove") {
      (void)sys::read_all(sandbox::kServerEndFd);
      (void)sandbox::remove_server_folder(
          argv[2], [](const sandbox::Leftover& kept) { return sandbox::lives_on(kept.record); });
      (void)sandbox::Bases(sandbox::home_of(argv[2])).collect();
      return 0;
    }
    if (argc > 1 && std::string_view(argv[1]) == runtime::kTreeMode)
      ::_exit(runtime::run_tree_process({argv + 2, argv + argc}));
    return run(argc, argv);
  } catch (const Error& e) {
    fmt::print(stderr, "hutch: {}\n", error_text(e));
  } catch (const std::exception& e) {
    fmt::print(stderr, "hutch: internal error: {}\n", e.what());
  }
  return kFailure;
}
