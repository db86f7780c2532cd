#include "sandbox/turn.h"

#include <chrono>
#include <thread>

#include "base/sha256.h"
#include "base/sys.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kTurnLook = 50ms;  // the kernel's wait for a lock cannot be stopped

}  // namespace

Turn::Turn(const std::string& folder, const std::string& name, const char* waiting, const Progress& progress,
           const std::stop_token& stop)
    : file_(sys::open(folder + "/.turns", O_RDWR | O_CREAT, 0600)) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_start = std::stoll(sha256_hex(name).substr(0, 15), nullptr, 16);
  lock.l_len = 1;
  while (::fcntl(file_.get(), F_OFD_SETLK, &lock) != 0) {
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) throw sys_error(errno, "lock", folder);
    if (!waited_ && progress) progress(waiting);
    waited_ = true;
    if (stop.stop_requested()) throw Error(Errc::conflict, "cancelled");
    std::this_thread::sleep_for(kTurnLook);
  }
}

}  // namespace hutch::sandbox
