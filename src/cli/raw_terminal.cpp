#include "cli/raw_terminal.h"

#include <signal.h>
#include <termios.h>

#include <cerrno>

#include "base/error.h"

namespace hutch::cli {

namespace {

constexpr int kCrashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

// A signal handler can reach nothing but globals; both are set before it is.
int terminal_fd = -1;
termios terminal_before{};

void restore_terminal() {
  // From the background this would stop us, unless SIGTTOU is blocked.
  sigset_t stop, before;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTTOU);
  ::pthread_sigmask(SIG_BLOCK, &stop, &before);
  // Now: waiting until its output has gone out would wait for whoever does not read it.
  (void)::tcsetattr(terminal_fd, TCSANOW, &terminal_before);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void restore_and_crash(int signal) {
  restore_terminal();
  (void)::raise(signal);  // by now with its default action
}

void handle_crashes(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESETHAND;
  for (const int signal : kCrashes) ::sigaction(signal, &action, nullptr);
}

}  // namespace

RawTerminal::RawTerminal(int fd) {
  if (::tcgetattr(fd, &terminal_before) != 0) throw sys_error(errno, "tcgetattr");
  terminal_fd = fd;
  handle_crashes(restore_and_crash);
  termios raw = terminal_before;
  ::cfmakeraw(&raw);
  if (::tcsetattr(fd, TCSANOW, &raw) != 0) {
    const int error = errno;
    handle_crashes(SIG_DFL);
    throw sys_error(error, "tcsetattr");
  }
}

RawTerminal::~RawTerminal() {
  restore_terminal();
  handle_crashes(SIG_DFL);
}

}  // namespace hutch::cli
