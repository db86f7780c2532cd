#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "cli/commands.h"
#include "cli/control.h"
#include "cli/print.h"
#include "sandbox/status.h"
#include "schema/json_writer.h"
#include "tools/common.h"
#include "tools/encoding.h"

namespace hutch::cli {

using namespace std::chrono_literals;

namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr auto kFirstLook = 500ms, kEvery = 2000ms;

/// Everything at one moment.
struct Look {
  Clock::time_point when;
  sandbox::HostStatus host;
  sandbox::PressurePart pressure;
  std::vector<std::pair<RunningServer, json>> servers;
};

Look look(const Options& options, const std::string& home) {
  auto servers = ask_servers(options, "status");
  return {Clock::now(), sandbox::host_status(home), sandbox::pressure_part(), std::move(servers)};
}

std::string bytes(const json& object, const char* name) {
  return object.contains(name) ? tools::size_in_words(object[name].get<uint64_t>()) : "-";
}

std::string size(int64_t bytes) {
  return tools::size_in_words(static_cast<uint64_t>(bytes));
}

std::map<std::string, double> cpu_seconds(const Look& look) {
  std::map<std::string, double> out;
  for (const auto& [_, status] : look.servers)
    for (const json& one : status.at("sandboxes"))
      if (one.contains("cpu_s")) out[one.value("id", "")] = one["cpu_s"];
  return out;
}

std::string host_text(const sandbox::HostStatus& host) {
  return fmt::format(
      "host: {} of {} memory free, load {:.2f} on {} processors, {} of {} disk free, cgroup {}\n",
      size(host.memory_available_bytes), size(host.memory_bytes), host.load, host.cpus,
      size(host.disk_free_bytes), size(host.disk_bytes), host.cgroup);
}

std::string pressure_text(const sandbox::PressurePart& pressure) {
  if (!pressure.memory_some_percent) return "pressure: this kernel does not say (no /proc/pressure)\n";
  return fmt::format("pressure: some waited for memory {:.1f} % of the last 10 s, all of them {:.1f} %\n",
                     *pressure.memory_some_percent, pressure.memory_full_percent.value_or(0));
}

std::string server_text(const RunningServer& server, const json& status) {
  const json& about = status.at("server");
  const json& totals = status.at("totals");
  std::string text = fmt::format(
      "\nserver {}: process {}, up {}, started by {}\n"
      "  {} of {} sandboxes, {} warm; memory {} in use, limits {} of {}; disk {} in use, limits {}\n",
      server.id, about.value("pid", int64_t{0}), time_in_words(about.value("uptime_s", int64_t{0})),
      tools::one_line(about.value("owner", "")), totals.value("sandboxes", int64_t{0}),
      totals.value("sandboxes_limit", int64_t{0}), totals.value("warm", int64_t{0}),
      bytes(totals, "memory_bytes"), bytes(totals, "memory_limits_bytes"),
      bytes(totals, "memory_limits_max_bytes"), bytes(totals, "disk_bytes"),
      bytes(totals, "disk_limits_bytes"));
  const json& pressure = status.at("pressure");
  text += fmt::format("  memory pressure {}{}{}\n", pressure.value("level", ""),
                      pressure.contains("available") ? ": " + pressure.value("available", "") : "",
                      pressure.contains("last_action") ? "; last: " + pressure.value("last_action", "") : "");
  for (const json& kind : status.at("pool"))
    text += fmt::format("  pool {}: ready {} of {}, hits {}, misses {}\n", kind.value("kind", ""),
                        kind.value("ready", int64_t{0}), kind.value("target", int64_t{0}),
                        kind.value("hits", int64_t{0}), kind.value("misses", int64_t{0}));
  return text;
}

/// "153 %": of one processor, between two looks.
std::string cpu_text(const json& one, const std::map<std::string, double>& before, double elapsed_s) {
  const auto it = before.find(one.value("id", ""));
  if (!one.contains("cpu_s") || it == before.end() || elapsed_s <= 0) return "-";
  return fmt::format("{:.0f} %", std::max(0.0, one["cpu_s"].get<double>() - it->second) / elapsed_s * 100);
}

std::vector<std::string> sandbox_row(const json& one, const std::string& cpu) {
  std::vector<std::string> notes;
  for (const json& note : one.value("done_to_it", json::array()))
    notes.push_back(tools::one_line(note.get<std::string>()));
  const std::string name = one.value("name", "");
  return {"  " + one.value("id", ""),
          name.empty() ? "-" : name,
          one.value("state", ""),
          cpu,
          fmt::format("{} of {}", bytes(one, "memory_bytes"), bytes(one, "memory_limit_bytes")),
          fmt::format("{} of {}", one.value("pids", int64_t{0}), one.value("pids_limit", int64_t{0})),
          fmt::format("{} of {}", bytes(one, "disk_bytes"), bytes(one, "disk_limit_bytes")),
          idle_in_words(one.value("in_use", false), one.value("idle_s", int64_t{0})),
          fmt::format("{}", fmt::join(notes, "; "))};
}

std::string text_of(const Look& before, const Look& now) {
  std::string text = host_text(now.host) + pressure_text(now.pressure);
  const auto cpu_before = cpu_seconds(before);
  const double elapsed_s = std::chrono::duration<double>(now.when - before.when).count();
  for (const auto& [server, status] : now.servers) {
    text += server_text(server, status);
    std::vector<std::vector<std::string>> rows{
        {"  ID", "NAME", "STATE", "CPU", "MEMORY", "PIDS", "DISK", "IDLE", "DONE TO IT"}};
    for (const json& one : status.at("sandboxes"))
      rows.push_back(sandbox_row(one, cpu_text(one, cpu_before, elapsed_s)));
    text += columns(rows);
  }
  if (now.servers.empty()) text += "no server is running, or none has had a call yet\n";
  return text;
}

std::string json_of(const Look& now, int indent) {
  nlohmann::ordered_json out;
  out["host"] = schema::to_json(now.host);
  out["pressure"] = schema::to_json(now.pressure);
  out["servers"] = json::array();
  for (const auto& [server, status] : now.servers) {
    nlohmann::ordered_json one = status;
    one.erase("host");
    out["servers"].push_back(std::move(one));
  }
  return out.dump(indent);
}

void show(const Options& options, const std::string& text) {
  const bool redraw = options.watch && !options.json && ::isatty(STDOUT_FILENO) != 0;
  fmt::print("{}{}\n", redraw ? "\x1b[H\x1b[2J" : "", text);
  std::fflush(stdout);
}

}  // namespace

int stats(const Options& options) {
  const std::string home = load_settings(options).config.home;
  Look before = look(options, home), now = before;
  if (!options.json) {  // processor time is told between two looks
    std::this_thread::sleep_for(kFirstLook);
    now = look(options, home);
  }
  for (;;) {
    show(options, options.json ? json_of(now, options.watch ? -1 : 2) : text_of(before, now));
    if (!options.watch) return 0;
    std::this_thread::sleep_for(kEvery);
    before = std::exchange(now, look(options, home));
  }
}

}  // namespace hutch::cli
