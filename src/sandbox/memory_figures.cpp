#include "sandbox/memory_figures.h"

#include <sstream>

#include "base/sys.h"

namespace hutch::sandbox {

namespace {

/// "MemTotal:       16303912 kB"
void read_meminfo(PressureFigures& figures) {
  std::istringstream lines(sys::read_file("/proc/meminfo"));
  std::string line, name;
  for (uint64_t kib = 0; std::getline(lines, line);) {
    std::istringstream words(line);
    if (!(words >> name >> kib)) continue;
    if (name == "MemTotal:") figures.total_bytes = kib << 10;
    if (name == "MemAvailable:") figures.available_bytes = kib << 10;
  }
}

/// "some avg10=0.00 avg60=0.00 avg300=0.00 total=0". The file exists, and gives EOPNOTSUPP, where PSI is off.
void read_psi(PressureFigures& figures) {
  try {
    if (!sys::exists("/proc/pressure/memory")) return;
    std::istringstream words(sys::read_file("/proc/pressure/memory"));
    std::string who;
    for (std::string word; words >> word;) {
      if (word == "some" || word == "full") who = word;
      if (!word.starts_with("avg10=")) continue;
      (who == "some" ? figures.psi_some : figures.psi_full) = std::stod(word.substr(6));
    }
  } catch (const std::exception&) {
    figures.psi_some = figures.psi_full = std::nullopt;
  }
}

}  // namespace

PressureFigures read_figures(const runtime::CgroupHost& cgroups) {
  PressureFigures figures;
  read_meminfo(figures);
  read_psi(figures);
  if (const auto group = cgroups.tightest_memory(figures.total_bytes)) {
    figures.group_limit_bytes = group->limit_bytes;
    figures.group_used_bytes = group->used_bytes;
  }
  return figures;
}

}  // namespace hutch::sandbox
