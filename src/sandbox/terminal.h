#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace hutch::sandbox {

/// What a terminal shows.
struct Screen {
  /// Top to bottom, UTF-8 without control characters, without trailing blanks and trailing empty lines: the
  /// cursor may be below the last one or right of its end.
  std::vector<std::string> lines;
  int cursor_row = 1, cursor_column = 1;  // from 1; a wide character takes two columns
  bool cursor_visible = true;
  bool alternate =
      false;  // the screen of a full-screen program (vim, less, top), not the one with the past above it
  std::string title;  // as the program set it, at most 200 characters
};

/// What scrolled off the top.
struct Scrolled {
  std::vector<std::string> lines;  // oldest first, as in Screen
  size_t dropped = 0;              // older ones that were not kept
};

/// The state of one terminal, host side: what a program in a pseudo-terminal writes goes in, the screen comes
/// out as text. Behaves as an xterm with 7-bit controls and UTF-8 (TERM=xterm-256color) of which colours and
/// mouse are left out. What goes in may be hostile: it is bounded in memory, and only known sequences of it
/// reach libvterm (see terminal_filter.h). Not thread-safe.
///
/// Memory: the screens, 20 bytes for each column up to the last written one of each row, plus at most
/// kMaxScrolled lines.
class Terminal {
 public:
  static constexpr int kMaxSize = 500;          // rows, columns
  static constexpr size_t kMaxScrolled = 2000;  // lines
  static constexpr size_t kMaxAnswer = 4096;    // bytes: what the kernel's input queue of a terminal takes

  /// 1 to kMaxSize each, otherwise Error invalid_argument.
  Terminal(int rows, int columns);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// Output of the program, cut anywhere. Returns what the terminal answers (cursor position, its kind...),
  /// to be written to the program's input; answers beyond kMaxAnswer bytes in one call are left out.
  std::string feed(std::string_view bytes);

  /// As the constructor. What does not fit any more goes off the top or is cut off at the right; nothing is
  /// wrapped anew. The program itself is told by the pseudo-terminal (TIOCSWINSZ).
  void resize(int rows, int columns);

  Screen screen() const;

  /// Lines that scrolled off the top of the normal screen since the last call.
  Scrolled take_scrolled();

  /// The bytes that a keyboard sends for `text`, in the modes that the program set. Characters are typed as
  /// they are; a line feed, or a carriage return with one, is the Enter key (byte 13), so that "ls\n" runs
  /// ls. Keys stand in angle brackets, in any case:
  ///
  ///   <enter> <return> <cr> <tab> <esc> <space> <bs> <backspace> <del> <ins> <up> <down> <left> <right>
  ///   <home> <end> <pgup> <pageup> <pgdn> <pagedown> <f1> to <f12>, <lt> for "<" and <gt> for ">"
  ///
  /// with c- (control), a- or m- (alt) and s- (shift) before them in any order: <c-left>, <s-tab>, <a-enter>;
  /// the same before one character: <c-c>, <a-x>, <c-a-x>, <c-space>, <c-[>. Anything else in brackets, such
  /// as
  /// "<div>" or a control key that no terminal has (<c-1>), is typed as it stands.
  std::string keys(std::string_view text);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hutch::sandbox
