#include "agent/seccomp_filter.h"

#include <linux/filter.h>
#include <linux/seccomp.h>

#include "agent/seccomp_bpf.inc"
#include "agent/sys.h"

namespace hutch::agent {
namespace {

template <size_t size>
bool load(const sock_filter (&steps)[size]) {
  sock_fprog program{size, const_cast<sock_filter*>(steps)};
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

}  // namespace

bool load_seccomp_filters() {
  return load(kArgumentFilter) && load(kAllowList);
}

}  // namespace hutch::agent
