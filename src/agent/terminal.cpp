#include "agent/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <charconv>

#include "agent/sys.h"

namespace hutch::agent {
namespace {

/// By its name in the folder /dev/pts, where nothing can be renamed or made: gVisor has no TIOCGPTPEER.
int open_by_number(int ours) {
  unsigned number = 0;
  if (ioctl(ours, TIOCGPTN, &number) != 0) return -1;
  char name[16] = {};
  std::to_chars(name, name + sizeof name - 1, number);
  return openat(kPtsFd, name, O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
}

}  // namespace

const char* Terminal::open(const wire::WindowSize& size) {
  ours.reset(openat(kPtsFd, "ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!ours) return "open /dev/pts/ptmx";
  const int unlocked = 0;
  if (ioctl(ours.get(), TIOCSPTLCK, &unlocked) != 0) return "ioctl TIOCSPTLCK";
  theirs.reset(ioctl(ours.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));  // Linux 4.13
  if (!theirs && errno == ENOTTY) theirs.reset(open_by_number(ours.get()));
  if (!theirs) return "ioctl TIOCGPTPEER";
  resize_terminal(ours.get(), size);
  return nullptr;
}

void resize_terminal(int ours, const wire::WindowSize& size) {
  const winsize wanted{size.rows, size.columns, 0, 0};
  (void)ioctl(ours, TIOCSWINSZ, &wanted);
}

bool signal_foreground(int ours, int number) {
  if (number != SIGINT && number != SIGQUIT && number != SIGTSTP) return false;
  return ioctl(ours, TIOCSIG, number) == 0;
}

}  // namespace hutch::agent
