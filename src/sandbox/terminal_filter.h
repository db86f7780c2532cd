#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace hutch::sandbox {

/// What of a program's output libvterm may see. libvterm 0.1.4 trusts its input: a 17th parameter of a
/// control sequence is written over its own pointers, a character that is cut between two writes runs over
/// the stack, a string that is cut before its last byte is read beyond its end, a character of U+0080 to
/// U+009F moves the cursor left of the screen, a repeat of a character without width never ends. So this
/// parser comes first, and only what it knows goes on: whole characters, and whole sequences of a fixed list
/// with at most two parameters up to 9,999. Colours, mouse modes, margins, lines of double size and all
/// strings (OSC, DCS...) end here; the window title is taken out of them.
///
/// Holds at most one started sequence, 1 KiB of a string and one started character.
class TerminalFilter {
 public:
  /// Takes pieces of at most kPiece bytes, never ending within a character or a sequence.
  using Sink = std::function<void(std::string_view)>;
  static constexpr size_t kPiece = 1024;

  explicit TerminalFilter(Sink sink) : sink_(std::move(sink)) {}

  /// Everything that is complete has reached the sink when it returns.
  void feed(std::string_view bytes);
  /// How often a character is repeated at most: the width of the screen.
  void set_columns(int columns) noexcept { columns_ = columns; }
  /// As the program set it, at most 200 characters of valid UTF-8 without control characters.
  const std::string& title() const noexcept { return title_; }

 private:
  enum class State { text, escape, sequence, string, string_escape };
  static constexpr size_t kMaxParameters = 16;
  static constexpr int kMissing = -1;

  void byte(uint8_t c);
  void control(uint8_t c);
  void text(uint8_t c);
  void character(char32_t c);
  void broken_character();
  void escape(uint8_t c);
  void sequence(uint8_t c);
  void string(uint8_t c);

  void start_escape();
  void end_string();
  void run_sequence(uint8_t final);
  void run_plain(uint8_t final);
  void run_private(uint8_t final);
  void set_modes(uint8_t final);
  void repeat();
  void title_stack();
  void reset();

  int parameter(size_t i, int missing) const noexcept;
  void emit(std::string_view token);
  void flush();

  Sink sink_;
  std::string out_;
  State state_ = State::text;
  int columns_ = 1;

  // A character of which bytes are still to come, and the range of the next byte (UTF-8 has narrower ones
  // after some first bytes, which keeps out overlong forms and surrogates).
  int missing_bytes_ = 0;
  char32_t partial_ = 0;
  uint8_t next_low_ = 0x80, next_high_ = 0xBF;

  char32_t last_ = 0;  // what a repeat repeats; 0: nothing yet
  int marks_ = 0;      // combining characters since the last other one

  uint8_t leader_ = 0, intermediate_ = 0;
  bool unknown_ = false;  // the sequence is of a form that nothing here uses
  std::array<int, kMaxParameters> parameters_{};
  size_t parameter_count_ = 0;

  bool keeps_string_ = false;
  std::string string_;
  std::string title_;
  std::array<std::string, 4> titles_;  // pushed by full-screen programs while they run
  size_t titles_count_ = 0;
};

/// Adds one character as UTF-8; `c` is a valid code point.
void append_utf8(std::string& text, char32_t c);

}  // namespace hutch::sandbox
