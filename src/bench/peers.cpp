#include "bench/peers.h"

#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>

#include "base/error.h"
#include "base/sys.h"
#include "bench/machine.h"
#include "bench/mcp_client.h"

namespace hutch::bench {

namespace {

constexpr int kLookMs = 200;

Error wrong(const std::string& what) {
  return Error(Errc::invalid_argument, what)
      .hint(
          "--peers takes a list of {name, kind: \"command\", measures, argv}, {name, kind: \"mcp\", argv, "
          "calls}, "
          "{name, kind: \"relay\", argv} and {name, missing}");
}

std::string text_field(const Json& spec, const char* name, const std::string& of) {
  const auto it = spec.find(name);
  if (it == spec.end() || !it->is_string()) throw wrong(fmt::format("{} has no text '{}'", of, name));
  return *it;
}

Peer checked(const Json& spec, size_t position) {
  const std::string place = fmt::format("peer number {}", position + 1);
  if (!spec.is_object()) throw wrong(place + " is no object");
  Peer peer{text_field(spec, "name", place), spec};
  if (spec.contains("missing")) return peer;
  const std::string of = fmt::format("peer '{}'", peer.name), kind = text_field(spec, "kind", of);
  if (kind != "command" && kind != "mcp" && kind != "relay")
    throw wrong(fmt::format("{} has the unknown kind '{}'", of, kind));
  const auto argv = spec.find("argv");
  if (argv == spec.end() || !argv->is_array() || argv->empty()) throw wrong(of + " has no list 'argv'");
  for (const auto& word : *argv)
    if (!word.is_string()) throw wrong(of + ": 'argv' holds something other than text");
  if (kind == "command") (void)text_field(spec, "measures", of);
  for (const auto& call : spec.value("calls", Json::array())) {
    (void)text_field(call, "measures", of + ": a call");
    (void)text_field(call, "tool", of + ": a call");
    if (!call.contains("arguments")) throw wrong(of + ": a call has no 'arguments'");
  }
  return peer;
}

Json command_figures(const Json& spec, const Plan& plan) {
  const ServerCommand command = command_of(spec);
  Json figure = {{"measures", spec.at("measures")}};
  figure.update(measure(run_process(command.argv, command.env), plan));
  Json out = {{"figures", Json::array({figure})}};
  if (spec.value("cycles", false)) {
    out["cycles"] = Json::array();
    for (const size_t loops : {1, 2, 4, 8})
      out["cycles"].push_back(
          sustain(loops, plan.sustained_s, [&](size_t) { (void)process_ms(command.argv, command.env); }));
  }
  return out;
}

Json start_figure(const ServerCommand& command, const Plan& plan) {
  std::unique_ptr<McpClient> client;
  Operation operation;
  operation.run = [&] {
    client = std::make_unique<McpClient>(command);
    return client->start_ms();
  };
  operation.finish = [&] { client.reset(); };
  operation.batch = 1;
  Json figure = {{"measures", "start"}};
  figure.update(measure(operation, plan));
  return figure;
}

Json call_figure(McpClient& client, const Json& call, const Plan& plan) {
  const Json arguments = call.at("arguments");
  std::vector<Request> turns;
  for (const auto& one : arguments.is_array() ? arguments : Json::array({arguments}))
    turns.push_back(Request::tool(call.at("tool").get<std::string>(), one));
  size_t turn = 0;
  Operation operation;
  operation.run = [&] { return client.exchange(turns[turn++ % turns.size()]); };
  operation.finish = [&] { client.check(call.value("expect", "")); };
  Json figure = {{"measures", call.at("measures")}};
  figure.update(measure(operation, plan));
  return figure;
}

Json mcp_figures(const Json& spec, const Plan& plan) {
  const ServerCommand command = command_of(spec);
  Json figures = Json::array();
  if (spec.value("start", false)) figures.push_back(start_figure(command, plan));
  McpClient client(command);
  for (const auto& call : spec.value("calls", Json::array()))
    figures.push_back(call_figure(client, call, plan));
  return {{"figures", figures}};
}

void leave_mounts(const Json& folders) {
  if (::unshare(CLONE_NEWNS) != 0) throw sys_error(errno, "unshare", "mount namespace");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    throw sys_error(errno, "make / private");
  for (const std::string folder : folders)
    if (::umount2(folder.c_str(), MNT_DETACH) != 0) throw sys_error(errno, "umount", folder);
}

/// Runs `work` in a forked child, so that what it does to its namespaces is the child's alone. An Error of it
/// is passed on as text.
template <class Work>
Json in_child(Work work) {
  sys::Pipe pipe = sys::pipe();
  const pid_t pid = ::fork();
  if (pid < 0) throw sys_error(errno, "fork");
  if (pid == 0) {
    Json out;
    try {
      out = work();
    } catch (const Error& e) {
      out = {{"failed", error_text(e)}};
    } catch (...) {
      out = {{"failed", "stopped"}};
    }
    try {
      sys::write_all(pipe.write_end.get(), out.dump(-1, ' ', false, Json::error_handler_t::replace));
    } catch (...) {
      // The parent is gone: nobody wants it.
    }
    ::_exit(0);
  }
  pipe.write_end.reset();
  // When we are to stop, the child is told to: it holds the signal back as we do, and ends what it has
  // started.
  pollfd waiting{.fd = pipe.read_end.get(), .events = POLLIN, .revents = 0};
  while (::poll(&waiting, 1, kLookMs) == 0)
    if (interrupted()) ::kill(pid, SIGTERM);
  const std::string text = sys::read_all(pipe.read_end.get());
  (void)sys::retry_eintr([&] { return ::waitpid(pid, nullptr, 0); });
  check_interrupted();
  Json out = Json::parse(text, nullptr, false);
  if (out.is_discarded()) throw Error(Errc::internal, "the measuring process has died");
  if (out.contains("failed")) throw Error(Errc::internal, out.at("failed").get<std::string>());
  return out;
}

}  // namespace

bool is_relay(const Peer& peer) {
  return peer.spec.value("kind", "") == "relay";
}

ServerCommand command_of(const Json& spec) {
  ServerCommand command{spec.at("argv"), own_environment()};
  const std::string program = find_program(command.argv.at(0));
  if (program.empty()) throw Error(Errc::unavailable, command.argv.at(0) + " is not in PATH");
  command.argv[0] = program;
  const Json added = spec.value("env", Json::object());
  for (const auto& [name, value] : added.items()) {
    // getenv() takes the first of two: so the old one goes.
    std::erase_if(command.env, [&](const std::string& old) { return old.starts_with(name + "="); });
    command.env.push_back(fmt::format("{}={}", name, value.get<std::string>()));
  }
  return command;
}

std::vector<Peer> load_peers(const std::string& file) {
  const Json list = Json::parse(sys::read_file(file), nullptr, false);
  if (!list.is_array()) throw wrong(fmt::format("{} holds no JSON list of peers", file));
  std::vector<Peer> out;
  for (size_t i = 0; i < list.size(); ++i) out.push_back(checked(list[i], i));
  return out;
}

std::vector<Peer> find_peers() {
  if (find_program("bwrap").empty())
    return {{"bwrap", {{"name", "bwrap"}, {"missing", "bwrap is not in PATH: apt-get install bubblewrap"}}}};
  const Json argv = {"bwrap",  "--unshare-all", "--ro-bind", "/usr", "/usr",      "--symlink", "usr/bin",
                     "/bin",   "--symlink",     "usr/lib",   "/lib", "--symlink", "usr/lib64", "/lib64",
                     "--proc", "/proc",         "--dev",     "/dev", "--tmpfs",   "/tmp",      "true"};
  const Json spec = {{"name", "bwrap"},
                     {"kind", "command"},
                     {"measures", "create_exec_destroy"},
                     {"argv", argv},
                     {"cycles", true}};
  return {{"bwrap", spec}};
}

Json run_peer(const Peer& peer, const Plan& plan) {
  Json out = {{"name", peer.name}};
  if (peer.spec.contains("missing")) {
    out["missing"] = peer.spec.at("missing");
    return out;
  }
  out["kind"] = peer.spec.at("kind");
  if (peer.spec.contains("note")) out["note"] = peer.spec.at("note");
  const auto work = [&] {
    return peer.spec.at("kind") == "mcp" ? mcp_figures(peer.spec, plan) : command_figures(peer.spec, plan);
  };
  const Json unmount = peer.spec.value("unmount", Json::array());
  out.update(unmount.empty() ? work() : in_child([&] {
    leave_mounts(unmount);
    return work();
  }));
  return out;
}

}  // namespace hutch::bench
