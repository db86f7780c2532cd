#include "agent/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>

#include "agent/sys.h"

namespace hutch::agent {

const char* Terminal::open(const wire::WindowSize& size) {
  ours.reset(openat(kPtsFd, "ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!ours) return "open /dev/pts/ptmx";
  const int unlocked = 0;
  if (ioctl(ours.get(), TIOCSPTLCK, &unlocked) != 0) return "ioctl TIOCSPTLCK";
  theirs.reset(ioctl(ours.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));  // Linux 4.13
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
