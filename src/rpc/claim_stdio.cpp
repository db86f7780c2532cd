#include "rpc/claim_stdio.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/sys.h"

namespace hutch::rpc {

namespace {

UniqueFd private_copy(int fd, std::string_view name) {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) throw sys_error(errno, "fcntl(F_DUPFD_CLOEXEC)", name);
  return UniqueFd(copy);
}

void put(int from, int to) {
  if (sys::retry_eintr([&] { return ::dup2(from, to); }) < 0) throw sys_error(errno, "dup2");
}

}  // namespace

Stdio claim_stdio() {
  Stdio stdio{private_copy(STDIN_FILENO, "stdin"), private_copy(STDOUT_FILENO, "stdout")};
  const UniqueFd null(private_copy(sys::open("/dev/null", O_RDWR).get(), "/dev/null"));
  if (::fcntl(STDERR_FILENO, F_GETFD) < 0) put(null.get(), STDERR_FILENO);
  put(null.get(), STDIN_FILENO);
  put(STDERR_FILENO, STDOUT_FILENO);
  return stdio;
}

}  // namespace hutch::rpc
