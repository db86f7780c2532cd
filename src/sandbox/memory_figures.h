#pragma once

#include "runtime/cgroup.h"
#include "sandbox/pressure.h"

namespace hutch::sandbox {

/// As the kernel has them now.
PressureFigures read_figures(const runtime::CgroupHost& cgroups);

}  // namespace hutch::sandbox
