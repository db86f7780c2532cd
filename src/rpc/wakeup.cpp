#include "rpc/wakeup.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstdint>

#include "base/sys.h"

namespace hutch::rpc {

Wakeup::Wakeup() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!fd_) throw sys_error(errno, "eventfd");
}

void Wakeup::set() noexcept {
  const int kept = errno;  // a signal handler must not change what the interrupted code sees
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
  errno = kept;
}

bool Wakeup::is_set() const noexcept {
  pollfd entry{fd_.get(), POLLIN, 0};
  return sys::retry_eintr([&] { return ::poll(&entry, 1, 0); }) > 0;
}

}  // namespace hutch::rpc
