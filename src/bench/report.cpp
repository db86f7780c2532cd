#include "bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace hutch::bench {

namespace {

using Table = std::vector<std::vector<std::string>>;

/// First column to the left, the others to the right.
std::string format_table(const Table& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - row[i].size(), ' ');
      out += i == 0 ? row[i] + space : "  " + space + row[i];
    }
    out += '\n';
  }
  return out;
}

/// Three digits that count.
std::string number(double value) {
  if (value == 0) return "0";
  return fmt::format("{:.{}f}", value, value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3);
}

const Json* named(const Json& list, const std::string& name) {
  for (const auto& entry : list)
    if (entry.at("name") == name) return &entry;
  return nullptr;
}

std::optional<double> p50(const Json* figure, const char* mode) {
  if (figure == nullptr || !figure->contains(mode)) return std::nullopt;
  const Json& summary = figure->at(mode);
  return summary.contains("p50") ? std::optional<double>(summary.at("p50")) : std::nullopt;
}

std::string ratio(std::optional<double> ours, std::optional<double> theirs) {
  if (!ours || !theirs || *theirs <= 0) return "-";
  return number(*ours / *theirs);
}

/// What a scenario is held against: the machine's least, and peers that measure `measures`.
struct Comparison {
  const char* scenario;
  const char* floor;
  const char* measures;
};
constexpr Comparison kComparisons[] = {
    {"start", nullptr, "start"},
    {"ping", "floor_json_echo", nullptr},
    {"create_cold", "floor_clone", "create_exec_destroy"},
    {"exec_true", "floor_spawn_true", "exec"},
    {"exec_true", nullptr, "exec_true"},
    {"exec_sh", "floor_spawn_sh", "exec_sh"},
    {"exec_python", "floor_spawn_python", nullptr},
    {"read_4k", nullptr, "read_4k"},
    {"write_4k", nullptr, "write_4k"},
    {"edit_4k", nullptr, "edit_4k"},
    {"parallel_10", "floor_spawn_10", nullptr},
    {"parallel_100", "floor_spawn_100", nullptr},
};

void add_ratio(Table& rows, const std::string& ours_name, const Json* ours, const std::string& name,
               const Json* other) {
  if (other == nullptr || ours == nullptr || !ours->contains("spaced") || !other->contains("spaced")) return;
  rows.push_back({ours_name + " / " + name, ratio(p50(ours, "spaced"), p50(other, "spaced")),
                  ratio(p50(ours, "burst"), p50(other, "burst"))});
}

void add_cycle_ratios(Table& rows, const Json& result) {
  const Json* ours = named(result.at("scenarios"), "cycles");
  if (ours == nullptr || !ours->contains("cycles")) return;
  for (const auto& peer : result.at("peers")) {
    if (!peer.contains("cycles")) continue;
    for (size_t i = 0; i < ours->at("cycles").size(); ++i) {
      const Json &mine = ours->at("cycles")[i], &theirs = peer.at("cycles")[i];
      rows.push_back({fmt::format("cycles per s / {}, {} side by side", peer.at("name").get<std::string>(),
                                  mine.at("clients").get<int>()),
                      "-", ratio(mine.at("per_s"), theirs.at("per_s"))});
    }
  }
}

std::string ratios(const Json& result) {
  Table rows;
  const Json& scenarios = result.at("scenarios");
  add_ratio(rows, "create_warm", named(scenarios, "create_warm"), "ping", named(scenarios, "ping"));
  for (const auto& comparison : kComparisons) {
    const Json* ours = named(scenarios, comparison.scenario);
    if (comparison.floor != nullptr)
      add_ratio(rows, comparison.scenario, ours, comparison.floor,
                named(result.at("floors"), comparison.floor));
    if (comparison.measures == nullptr) continue;
    for (const auto& peer : result.at("peers"))
      for (const auto& figure : peer.value("figures", Json::array()))
        if (figure.at("measures") == comparison.measures)
          add_ratio(rows, comparison.scenario, ours, peer.at("name").get<std::string>(), &figure);
  }
  if (const Json* entry = named(scenarios, "neighbour"); entry != nullptr && entry->contains("quiet"))
    add_ratio(rows, "neighbour", entry, "without it", &entry->at("quiet"));
  for (const auto& entry : scenarios)
    for (const auto& other : entry.value("beside", Json::array()))
      add_ratio(rows, entry.at("name"), &entry, other.at("what"), &other);
  add_cycle_ratios(rows, result);
  if (rows.empty()) return "";
  rows.insert(rows.begin(),
              {"ratio of medians, below 1 is faster (cycles: above 1)", "spaced", "back to back"});
  return format_table(rows) + '\n';
}

/// `add`(name, figure) for a scenario and for what it was measured in turn with.
template <class Add>
void each_in_turn(const Json& entry, const Add& add) {
  const std::string name = entry.at("name");
  add(name, entry);
  for (const auto& other : entry.value("beside", Json::array()))
    add(fmt::format("{} ({})", name, other.at("what").get<std::string>()), other);
}

/// Where a difference counts.
std::string additions(const Json& result) {
  Table rows;
  const auto add = [&](const std::string& name, const Json& figure) {
    if (!figure.contains("added")) return;
    const Json& added = figure.at("added");
    std::vector<std::string> row{fmt::format("{}, to {}", name, added.at("to").get<std::string>())};
    for (const char* mode : {"spaced", "burst"})
      for (const char* field : {"p50", "p99"}) row.push_back(number(added.at(mode).at(field)));
    rows.push_back(std::move(row));
  };
  for (const auto& entry : result.at("scenarios")) each_in_turn(entry, add);
  if (rows.empty()) return "";
  rows.insert(rows.begin(),
              {"added ms in the same round, spaced, then back to back", "p50", "p99", "p50", "p99"});
  return format_table(rows) + '\n';
}

/// Where bytes were counted.
std::string speeds(const Json& result) {
  Table rows;
  for (const auto& entry : result.at("scenarios"))
    if (entry.contains("bytes"))
      each_in_turn(entry, [&](const std::string& name, const Json& figure) {
        const double gb_ms = entry.at("bytes").get<double>() / 1e6;
        rows.push_back({name, ratio(gb_ms, p50(&figure, "spaced")), ratio(gb_ms, p50(&figure, "burst"))});
      });
  if (rows.empty()) return "";
  rows.insert(rows.begin(), {"GB/s", "spaced", "back to back"});
  return format_table(rows) + '\n';
}

void add_times(Table& rows, const std::string& name, const Json& figure) {
  if (!figure.contains("spaced")) return;
  std::vector<std::string> row{name};
  for (const char* mode : {"spaced", "burst"}) {
    const Json& summary = figure.at(mode);
    row.push_back(fmt::format("{}", summary.at("n").get<size_t>()));
    for (const char* field : {"p50", "p90", "p99", "max"})
      row.push_back(summary.contains(field) ? number(summary.at(field)) : "-");
  }
  row.push_back(number(figure.at("burst").value("cpu_ms", 0.0)));
  rows.push_back(std::move(row));
}

std::string times(const Json& result) {
  Table rows;
  for (const char* section : {"scenarios", "floors"})
    for (const auto& entry : result.at(section)) {
      each_in_turn(entry,
                   [&](const std::string& name, const Json& figure) { add_times(rows, name, figure); });
      if (entry.contains("quiet"))
        add_times(rows, entry.at("name").get<std::string>() + " (without it)", entry.at("quiet"));
    }
  for (const auto& peer : result.at("peers"))
    for (const auto& figure : peer.value("figures", Json::array()))
      add_times(rows,
                fmt::format("{} ({})", peer.at("name").get<std::string>(),
                            figure.at("measures").get<std::string>()),
                figure);
  if (rows.empty()) return "";
  rows.insert(rows.begin(), {"ms", "n", "p50", "p90", "p99", "max", "n", "p50", "p90", "p99", "max", "cpu"});
  return "spaced (a pause before each), then back to back; cpu: processor time of the whole machine per "
         "operation,\n"
         "back to back, with the client, daemons and whatever else ran\n" +
         format_table(rows) + '\n';
}

std::string cycles(const Json& result) {
  Table rows;
  const auto add = [&](const std::string& name, const Json& entry) {
    for (const auto& c : entry.value("cycles", Json::array()))
      rows.push_back({name, fmt::format("{}", c.at("clients").get<int>()), number(c.at("per_s")),
                      number(c.value("p50", 0.0)), number(c.value("p99", 0.0)), number(c.at("cpu_ms"))});
  };
  for (const char* section : {"scenarios", "peers"})
    for (const auto& entry : result.at(section))
      add(section == std::string("scenarios") ? "hutch" : entry.at("name").get<std::string>(), entry);
  if (rows.empty()) return "";
  rows.insert(rows.begin(), {"create, run true, destroy", "clients", "per s", "p50 ms", "p99 ms", "cpu ms"});
  return format_table(rows) + '\n';
}

std::string kib(const Json& entry, const char* field) {
  return entry.contains(field) ? number(entry.at(field).get<double>() / 1024) : "-";
}

std::string count_or_dash(const Json& entry, const char* field) {
  return entry.contains(field) ? number(entry.at(field)) : "-";
}

std::string memory(const Json& result) {
  std::string out;
  if (const Json* rss = named(result.at("scenarios"), "rss"); rss != nullptr && rss->contains("rss"))
    out += fmt::format("server's resident memory: {} KiB after initialize, {} KiB after the first call\n",
                       kib(rss->at("rss"), "after_initialize_bytes"),
                       kib(rss->at("rss"), "after_first_call_bytes"));
  if (const Json* memory = named(result.at("scenarios"), "memory");
      memory != nullptr && memory->contains("memory")) {
    Table rows{{"idle sandboxes", "cgroup KiB each", "server KiB each", "machine KiB each", "cpu ms",
                "server cpu ms"}};
    for (const auto& m : memory->at("memory"))
      rows.push_back({fmt::format("{} (cpu in {} s)", m.at("sandboxes").get<int>(), number(m.at("idle_s"))),
                      kib(m, "cgroup_bytes_each"), kib(m, "server_rss_bytes_each"),
                      kib(m, "available_bytes_each"), count_or_dash(m, "idle_cpu_ms"),
                      count_or_dash(m, "idle_server_cpu_ms")});
    out += format_table(rows);
  }
  return out.empty() ? out : out + '\n';
}

std::string warmth(const Json& result) {
  std::string out;
  if (const Json* entry = named(result.at("scenarios"), "hit_ratio");
      entry != nullptr && entry->contains("steady")) {
    const Json& s = entry->at("steady");
    out += fmt::format("20 creates a second: {} of {} warm ({:.3f}), p50 {} ms, p99 {} ms\n",
                       s.at("warm").get<int>(), s.at("n").get<int>(), s.at("hit_ratio").get<double>(),
                       number(s.value("p50", 0.0)), number(s.value("p99", 0.0)));
  }
  for (const char* name : {"create_warm", "create_cold"})
    if (const Json* entry = named(result.at("scenarios"), name);
        entry != nullptr && entry->contains("spaced"))
      out +=
          fmt::format("{}: warm {} of {} spaced, {} of {} back to back\n", name,
                      entry->at("spaced").at("warm").get<int>(), entry->at("spaced").at("created").get<int>(),
                      entry->at("burst").at("warm").get<int>(), entry->at("burst").at("created").get<int>());
  return out.empty() ? out : out + '\n';
}

std::string problems(const Json& result) {
  std::string out;
  for (const char* section : {"floors", "scenarios", "peers"})
    for (const auto& entry : result.at(section)) {
      const std::string name = entry.at("name");
      if (entry.contains("failed"))
        out += fmt::format("FAILED {}: {}\n", name, entry.at("failed").get<std::string>());
      if (entry.contains("missing"))
        out += fmt::format("missing {}: {}\n", name, entry.at("missing").get<std::string>());
    }
  for (const auto& warning : result.at("warnings"))
    out += fmt::format("warning: {}\n", warning.get<std::string>());
  return out;
}

std::string heading(const Json& result) {
  const Json& machine = result.at("machine");
  return fmt::format("{}, {} processors, Linux {}, cgroup {}; hutch {}; {}, {}\n\n",
                     machine.at("cpu").get<std::string>(), machine.at("cores").get<int>(),
                     machine.at("kernel").get<std::string>(), machine.at("cgroup").get<std::string>(),
                     result.at("build").at("version").get<std::string>(),
                     result.at("length").get<std::string>(), result.at("date").get<std::string>());
}

}  // namespace

std::string progress_line(const Json& entry) {
  std::string line = entry.at("name");
  line.resize(std::max<size_t>(line.size() + 2, 22), ' ');
  if (entry.contains("failed")) return line + "FAILED: " + entry.at("failed").get<std::string>();
  if (entry.contains("missing")) return line + "missing: " + entry.at("missing").get<std::string>();
  const Json figures = entry.value("figures", Json::array({entry}));
  const auto middle = figures.empty() ? std::nullopt : p50(&figures[0], "spaced");
  if (!middle) return line + "done";
  return line + fmt::format("{} ms spaced, {} ms back to back", number(*middle),
                            number(p50(&figures[0], "burst").value_or(0)));
}

std::string to_text(const Json& result) {
  return heading(result) + ratios(result) + additions(result) + speeds(result) + times(result) +
         cycles(result) + memory(result) + warmth(result) + problems(result);
}

}  // namespace hutch::bench
