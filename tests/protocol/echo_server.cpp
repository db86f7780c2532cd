/// The protocol core with toy tools: what the protocol tests drive. Takes no notice of sandboxes.
///
///     echo_server [--structured] [--message-max BYTES] [--pending N] [--threads N] [--progress-interval MS]
///                 [--task-after MS] [--task-ttl MS] [--tasks-kept N] [--question-lifetime MS]
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "mcp/server.h"
#include "rpc/claim_stdio.h"

namespace {

using namespace hutch;
using mcp::NoArgs;

struct EchoArgs {
  std::string text;
  int64_t repeat = 1;

  template <class V>
  void describe(V& v) {
    v.required("text", text, "What to say.", {.max = 100'000});
    v.optional("repeat", repeat, "How often.", {.min = 1, .max = 1'000'000});
  }
};

struct EchoResult {
  std::string text;

  template <class V>
  void describe(V& v) {
    v.required("text", text, "What was said.");
  }
};

struct SlowArgs {
  bool ignores_progress = false;
  std::string said = "working";

  template <class V>
  void describe(V& v) {
    v.optional("ignores_progress", ignores_progress, "Report nothing.");
    v.optional("said", said, "Progress message.");
  }
};

struct SlowResult {
  std::string end;

  template <class V>
  void describe(V& v) {
    v.required("end", end, "How it ended.", {.one_of = {"stopped"}});
  }
};

struct WaitArgs {
  std::string name;

  template <class V>
  void describe(V& v) {
    v.required("name", name, "What to wait for.");
  }
};

struct ReleaseArgs {
  std::string name;
  std::string how = "result";

  template <class V>
  void describe(V& v) {
    v.required("name", name, "Who waits.");
    v.optional("how", how, "What comes of it.", {.one_of = {"result", "error", "protocol_error"}});
  }
};

struct AskArgs {
  std::string name;
  int64_t timeout_ms = 60'000;
  std::string text = "Allow it?";
  std::string until;
  bool twice = false;
  bool anyway = false;

  template <class V>
  void describe(V& v) {
    v.required("name", name, "What the question is about.");
    v.optional("timeout_ms", timeout_ms, "How long to wait for an answer.");
    v.optional("text", text, "What to ask.");
    v.optional("until", until, "Ask no more once this is released.");
    v.optional("twice", twice, "Ask once more.");
    v.optional("anyway", anyway, "Ask also who cannot be asked.");
  }
};

/// The tests say when a call of `wait` ends, and how.
class Gates {
 public:
  void release(const std::string& name, const std::string& how) {
    const std::lock_guard lock(mutex_);
    released_[name] = how;
    changed_.notify_all();
  }
  /// Empty when it was stopped.
  std::string wait(const std::string& name, const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, [&] { return released_.count(name) != 0; });
    return released_[name];
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, std::string> released_;
};

EchoResult wait_for_release(Gates& gates, const WaitArgs& args, mcp::CallContext& context) {
  context.progress("waiting for " + args.name);
  const std::string how = gates.wait(args.name, context.stop());
  if (how == "error") throw Error(Errc::not_found, "released with an error").hint("call echo");
  if (how == "protocol_error") throw mcp::ProtocolError{-32603, "released with a protocol error"};
  if (how.empty()) std::fprintf(stderr, "%s stopped\n", args.name.c_str());
  return {how.empty() ? "stopped" : args.name};
}

EchoResult echo(const EchoArgs& args, mcp::CallContext&) {
  EchoResult out;
  for (int64_t i = 0; i < args.repeat; ++i) out.text += args.text;
  return out;
}

/// Works until it is stopped, and reports progress again and again.
SlowResult slow(const SlowArgs& args, mcp::CallContext& context) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  const std::stop_token stop = context.stop();
  while (!stop.stop_requested()) {
    if (!args.ignores_progress) context.progress(args.said);
    wake.wait_until(lock, stop, std::chrono::system_clock::now() + std::chrono::milliseconds(5),
                    [] { return false; });
  }
  // Too late: none of these may be sent once the call was cancelled.
  context.progress("too late");
  std::fprintf(stderr, "slow stopped\n");
  return {"stopped"};
}

std::string in_words(const mcp::Decision& decision) {
  if (decision.kind == mcp::Decision::Kind::chosen) return "chosen " + decision.choice;
  return decision.kind == mcp::Decision::Kind::declined ? "declined" : "none";
}

EchoResult ask(Gates& gates, const AskArgs& args, mcp::CallContext& context) {
  if (const auto& resumed = context.resumed())
    return {resumed->subject + ", " + resumed->state + ": " + in_words(resumed->decision)};
  std::fprintf(stderr, "%s begins\n", args.name.c_str());
  const mcp::Question question{args.text,
                               {{"once", "Once"}, {"sandbox", "For this sandbox"}, {"no", "No\x1b!"}}};
  if (args.anyway || context.question_style() == mcp::QuestionStyle::round_trip)
    throw mcp::InputRequired{question, args.name, "work of " + args.name};
  const std::chrono::milliseconds timeout(args.timeout_ms);
  std::stop_source needless;
  std::jthread watch;
  if (!args.until.empty())
    watch = std::jthread([&](const std::stop_token& stop) {
      gates.wait(args.until, stop);
      needless.request_stop();
    });
  const mcp::Decision decision = context.ask(question, timeout, needless.get_token());
  if (context.stop().stop_requested()) std::fprintf(stderr, "%s stopped\n", args.name.c_str());
  if (!args.twice) return {in_words(decision)};
  return {in_words(decision) + ", then " + in_words(context.ask(question, timeout))};
}

EchoResult noisy(const NoArgs&, mcp::CallContext&) {
  std::puts("this must not reach the protocol");
  std::fflush(stdout);
  std::cout << "nor this" << std::endl;
  return {"done"};
}

EchoResult broken_text(const NoArgs&, mcp::CallContext&) {
  return {std::string("a\xff\xfe z\0", 6)};
}

EchoResult fail(const NoArgs&, mcp::CallContext&) {
  throw Error(Errc::not_found, "there is no such thing").hint("call echo");
}

EchoResult fail_badly(const NoArgs&, mcp::CallContext&) {
  throw std::runtime_error("a library threw");
}

mcp::Reply render_echo(const EchoResult& result) {
  return {result.text};
}

void add_task_tools(mcp::ToolRegistry& tools, Gates& gates) {
  tools.add<SlowArgs, SlowResult>(
      {.name = "slow", .title = "slow", .description = "A toy.", .toolset = "core", .task = true}, slow,
      [](const SlowResult& r) { return mcp::Reply{r.end}; });
  tools.add<WaitArgs, EchoResult>(
      {.name = "wait", .title = "wait", .description = "A toy.", .toolset = "core", .task = true},
      [&gates](const WaitArgs& args, mcp::CallContext& context) {
        return wait_for_release(gates, args, context);
      },
      render_echo);
  for (const bool task : {false, true})
    tools.add<AskArgs, EchoResult>(
        {.name = task ? "ask_long" : "ask",
         .title = "ask",
         .description = "A toy.",
         .toolset = "core",
         .task = task},
        [&gates](const AskArgs& args, mcp::CallContext& context) { return ask(gates, args, context); },
        render_echo);
  tools.add<ReleaseArgs, EchoResult>(
      {.name = "release", .title = "release", .description = "A toy.", .toolset = "core"},
      [&gates](const ReleaseArgs& args, mcp::CallContext&) {
        gates.release(args.name, args.how);
        return EchoResult{"released"};
      },
      render_echo);
}

void add_tools(mcp::ToolRegistry& tools) {
  const auto info = [](const char* name) {
    return mcp::ToolInfo{
        .name = name, .title = name, .description = "A toy.", .toolset = "core", .read_only = true};
  };
  tools.add<EchoArgs, EchoResult>(info("echo"), echo, render_echo);
  tools.add<NoArgs, EchoResult>(info("noisy"), noisy, render_echo);
  tools.add<NoArgs, EchoResult>(info("broken_text"), broken_text, render_echo);
  tools.add<NoArgs, EchoResult>(info("fail"), fail, render_echo);
  tools.add<NoArgs, EchoResult>(info("fail_badly"), fail_badly, render_echo);
}

/// `gate://NAME` is read when the tool `release` says so.
void add_resources(mcp::ResourceRegistry& resources, Gates& gates) {
  using Variables = mcp::ResourceRegistry::Variables;
  resources.add({.uri = "echo://fixed", .name = "fixed", .title = "Fixed", .mime_type = "text/plain"},
                [](const Variables&, mcp::CallContext&) {
                  return mcp::ResourceContent{"text/plain", "hi"};
                });
  resources.add({.uri = "echo://broken", .name = "broken"},
                [](const Variables&, mcp::CallContext&) -> mcp::ResourceContent {
                  throw std::runtime_error("a library threw");
                });
  resources.add({.uri = "gate://{name}", .name = "gate"},
                [&gates](const Variables& variables, mcp::CallContext& context) {
                  return mcp::ResourceContent{"text/plain",
                                              wait_for_release(gates, {variables.at("name")}, context).text};
                },
                {{"name", [] {
                    return std::vector<std::string>{"first", "second"};
                  }}});
}

struct Settings {
  bool resources = false;
  mcp::Results results = mcp::Results::text;
  mcp::ServerOptions options{.info = {"echo", "Echo", "1.0"}, .instructions = "Say something."};
};

Settings parse(int argc, char** argv) {
  Settings out;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--structured") {
      out.results = mcp::Results::structured;
      continue;
    }
    if (option == "--resources") {
      out.resources = true;
      continue;
    }
    const long value = i + 1 < argc ? std::strtol(argv[++i], nullptr, 10) : 0;
    if (option == "--message-max") out.options.message_max_bytes = static_cast<size_t>(value);
    if (option == "--pending") out.options.pending_requests = static_cast<size_t>(value);
    if (option == "--threads") out.options.worker_threads = static_cast<size_t>(value);
    if (option == "--task-after") out.options.task_after = std::chrono::milliseconds(value);
    if (option == "--task-ttl") out.options.tasks.default_ttl = std::chrono::milliseconds(value);
    if (option == "--question-lifetime") out.options.question_lifetime = std::chrono::milliseconds(value);
    if (option == "--tasks-kept") out.options.tasks.kept = static_cast<size_t>(value);
    if (option == "--progress-interval") out.options.progress_interval = std::chrono::milliseconds(value);
  }
  return out;
}

// The handler has no other way to find the server.
mcp::Server* g_server = nullptr;

}  // namespace

int main(int argc, char** argv) {
  const rpc::Stdio stdio = rpc::claim_stdio();
  std::signal(SIGPIPE, SIG_IGN);
  const Settings settings = parse(argc, argv);
  mcp::ToolRegistry tools(settings.results);
  Gates gates;
  add_tools(tools);
  add_task_tools(tools, gates);
  mcp::ResourceRegistry resources;
  if (settings.resources) add_resources(resources, gates);
  mcp::Server server(tools, resources, settings.options, stdio.in.get(), stdio.out.get());
  g_server = &server;
  std::signal(SIGTERM, [](int) { g_server->stop(); });
  switch (server.run()) {
    case mcp::Server::End::eof:
      std::fprintf(stderr, "ended: eof\n");
      break;
    case mcp::Server::End::stopped:
      std::fprintf(stderr, "ended: stopped\n");
      break;
    case mcp::Server::End::peer_gone:
      std::fprintf(stderr, "ended: peer gone\n");
      break;
  }
}
