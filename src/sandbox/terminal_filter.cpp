#include "sandbox/terminal_filter.h"

#include <algorithm>
#include <iterator>

#include "schema/text.h"

namespace hutch::sandbox {

namespace {

constexpr char32_t kReplacement = 0xFFFD;
constexpr int kMaxNumber = 9999;
constexpr int kMaxMarks = 3;  // on one character: what any script writes, and no tower of accents
constexpr size_t kMaxString = 1024;
constexpr size_t kMaxTitle = 200;

struct Range {
  char32_t first, last;
};

/// What libvterm joins to the character before it (Unicode's categories Mn, Me and Cf), with the vowel signs
/// (Mc) between them. libvterm keeps a whole run of them and goes through it at each further one, so a run
/// must not be long; that is all this is for.
constexpr Range kMarks[] = {
    {0x0300, 0x036F},   {0x0483, 0x0489},   {0x0591, 0x05BD},   {0x05BF, 0x05BF},   {0x05C1, 0x05C2},
    {0x05C4, 0x05C5},   {0x05C7, 0x05C7},   {0x0600, 0x0603},   {0x0610, 0x0615},   {0x064B, 0x065E},
    {0x0670, 0x0670},   {0x06D6, 0x06E4},   {0x06E7, 0x06E8},   {0x06EA, 0x06ED},   {0x070F, 0x070F},
    {0x0711, 0x0711},   {0x0730, 0x074A},   {0x07A6, 0x07B0},   {0x07EB, 0x07F3},   {0x0901, 0x0902},
    {0x093C, 0x093C},   {0x0941, 0x094D},   {0x0951, 0x0954},   {0x0962, 0x0963},   {0x0981, 0x0981},
    {0x09BC, 0x09BC},   {0x09C1, 0x09CD},   {0x09E2, 0x09E3},   {0x0A01, 0x0A02},   {0x0A3C, 0x0A4D},
    {0x0A70, 0x0A71},   {0x0A81, 0x0A82},   {0x0ABC, 0x0ABC},   {0x0AC1, 0x0ACD},   {0x0AE2, 0x0AE3},
    {0x0B01, 0x0B01},   {0x0B3C, 0x0B3C},   {0x0B3F, 0x0B56},   {0x0B82, 0x0B82},   {0x0BC0, 0x0BCD},
    {0x0C3E, 0x0C56},   {0x0CBC, 0x0CBC},   {0x0CBF, 0x0CCD},   {0x0CE2, 0x0CE3},   {0x0D41, 0x0D4D},
    {0x0DCA, 0x0DD6},   {0x0E31, 0x0E31},   {0x0E34, 0x0E3A},   {0x0E47, 0x0E4E},   {0x0EB1, 0x0EB1},
    {0x0EB4, 0x0EBC},   {0x0EC8, 0x0ECD},   {0x0F18, 0x0F19},   {0x0F35, 0x0F35},   {0x0F37, 0x0F37},
    {0x0F39, 0x0F39},   {0x0F71, 0x0F84},   {0x0F86, 0x0F87},   {0x0F90, 0x0FBC},   {0x0FC6, 0x0FC6},
    {0x102D, 0x1039},   {0x1058, 0x1059},   {0x1160, 0x11FF},   {0x135F, 0x135F},   {0x1712, 0x1714},
    {0x1732, 0x1734},   {0x1752, 0x1753},   {0x1772, 0x1773},   {0x17B4, 0x17D3},   {0x17DD, 0x17DD},
    {0x180B, 0x180D},   {0x18A9, 0x18A9},   {0x1920, 0x193B},   {0x1A17, 0x1A18},   {0x1B00, 0x1B03},
    {0x1B34, 0x1B42},   {0x1B6B, 0x1B73},   {0x1DC0, 0x1DFF},   {0x200B, 0x200F},   {0x202A, 0x202E},
    {0x2060, 0x206F},   {0x20D0, 0x20EF},   {0x302A, 0x302F},   {0x3099, 0x309A},   {0xA806, 0xA806},
    {0xA80B, 0xA80B},   {0xA825, 0xA826},   {0xFB1E, 0xFB1E},   {0xFE00, 0xFE0F},   {0xFE20, 0xFE23},
    {0xFEFF, 0xFEFF},   {0xFFF9, 0xFFFB},   {0x10A01, 0x10A0F}, {0x10A38, 0x10A3F}, {0x1D167, 0x1D169},
    {0x1D173, 0x1D182}, {0x1D185, 0x1D18B}, {0x1D1AA, 0x1D1AD}, {0x1D242, 0x1D244}, {0xE0001, 0xE01EF},
};

bool is_mark(char32_t c) {
  const Range* found =
      std::lower_bound(std::begin(kMarks), std::end(kMarks), c,
                       [](const Range& range, char32_t value) { return range.last < value; });
  return found != std::end(kMarks) && c >= found->first;
}

/// Characters that would end a line or be a command where the screen is read as text.
bool is_line_or_control(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029;
}

/// Without control characters, cut between characters; `raw` may be any bytes.
std::string clean_title(std::string_view raw) {
  const std::string text = schema::valid_utf8(raw);
  std::string title;
  size_t characters = 0;
  for (size_t at = 0; at < text.size() && characters < kMaxTitle;) {
    const auto first = static_cast<uint8_t>(text[at]);
    const size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    const std::string_view one = std::string_view(text).substr(at, length);
    at += length;
    const bool c1 = one.size() == 2 && first == 0xC2 && static_cast<uint8_t>(one[1]) < 0xA0;
    if (first < 0x20 || first == 0x7F || c1 || one == "\u2028" || one == "\u2029") continue;
    title += one;
    ++characters;
  }
  return title;
}

}  // namespace

void append_utf8(std::string& text, char32_t c) {
  const auto add = [&](char32_t value) { text += static_cast<char>(value); };
  const auto tail = [&](int shift) { add(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) return add(c);
  if (c < 0x800) {
    add(0xC0 | (c >> 6));
  } else if (c < 0x10000) {
    add(0xE0 | (c >> 12));
    tail(6);
  } else {
    add(0xF0 | (c >> 18));
    tail(12);
    tail(6);
  }
  tail(0);
}

void TerminalFilter::feed(std::string_view bytes) {
  for (const char c : bytes) byte(static_cast<uint8_t>(c));
  flush();
}

void TerminalFilter::emit(std::string_view token) {
  if (out_.size() + token.size() > kPiece) flush();
  out_ += token;
}

void TerminalFilter::flush() {
  if (!out_.empty()) sink_(out_);
  out_.clear();
}

void TerminalFilter::byte(uint8_t c) {
  if (state_ == State::string || state_ == State::string_escape) return string(c);
  if (c == 0x7F) return;
  if (c < 0x20) {
    if (missing_bytes_) broken_character();
    return control(c);
  }
  // A byte of a character ends a sequence that it cannot be part of.
  if (c >= 0x80) state_ = State::text;
  if (state_ == State::text) {
    text(c);
  } else if (state_ == State::escape) {
    escape(c);
  } else {
    sequence(c);
  }
}

void TerminalFilter::control(uint8_t c) {
  if (c == 0x1B) return start_escape();
  if (c == 0x18 || c == 0x1A) {
    state_ = State::text;
    return;
  }
  // Backspace, tab, line feed and its two like, carriage return, the switches to the line drawing set and
  // back.
  if (c >= 0x08 && c <= 0x0F) emit({reinterpret_cast<const char*>(&c), 1});
}

// -- characters
// ----------------------------------------------------------------------------------------------

void TerminalFilter::text(uint8_t c) {
  if (missing_bytes_) {
    if (c >= next_low_ && c <= next_high_) {
      partial_ = (partial_ << 6) | (c & 0x3F);
      next_low_ = 0x80;
      next_high_ = 0xBF;
      if (--missing_bytes_ == 0) character(partial_);
      return;
    }
    broken_character();
  }
  if (c < 0x80) return character(c);
  if (c < 0xC2 || c > 0xF4) return character(kReplacement);
  missing_bytes_ = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
  partial_ = c & (0x3F >> missing_bytes_);
  next_low_ = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
  next_high_ = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
}

void TerminalFilter::broken_character() {
  missing_bytes_ = 0;
  next_low_ = 0x80;
  next_high_ = 0xBF;
  character(kReplacement);
}

void TerminalFilter::character(char32_t c) {
  if (is_line_or_control(c)) return;
  if (is_mark(c)) {
    if (marks_ == kMaxMarks) return;
    ++marks_;
  } else {
    marks_ = 0;
    last_ = c;
  }
  std::string token;
  append_utf8(token, c);
  emit(token);
}

// -- escape sequences
// ----------------------------------------------------------------------------------------

void TerminalFilter::start_escape() {
  state_ = State::escape;
  leader_ = intermediate_ = 0;
  unknown_ = false;
  parameters_.fill(kMissing);
  parameter_count_ = 0;
}

void TerminalFilter::escape(uint8_t c) {
  if (c < 0x30) {
    unknown_ = unknown_ || intermediate_;
    intermediate_ = c;
    return;
  }
  state_ = State::text;
  if (unknown_) return;
  if (intermediate_) {
    // Character sets: line drawing, British, ASCII.
    if ((intermediate_ == '(' || intermediate_ == ')') && (c == '0' || c == 'A' || c == 'B'))
      emit("\033" + std::string{static_cast<char>(intermediate_), static_cast<char>(c)});
    return;
  }
  switch (c) {
    case '[':
      state_ = State::sequence;
      break;
    case ']':
    case 'P':
    case 'X':
    case '^':
    case '_':
      state_ = State::string;
      keeps_string_ = c == ']';
      string_.clear();
      break;
    case '8':
      // As a mode, since libvterm keeps the cursor on the screen only after a control sequence: the one that
      // was saved may lie outside after a change of size.
      emit("\033[?1048l");
      break;
    case 'c':
      reset();
      break;
    case '7':  // save the cursor
    case '=':  // keypad modes
    case '>':
    case 'D':  // line feed, new line, tab stop, reverse line feed
    case 'E':
    case 'H':
    case 'M':
      emit("\033" + std::string{static_cast<char>(c)});
      break;
    default:
      break;
  }
}

void TerminalFilter::reset() {
  title_.clear();
  titles_count_ = 0;
  // libvterm's own reset forgets that the alternate screen is shown.
  emit("\033[?1047l");
  emit("\033c");
}

void TerminalFilter::string(uint8_t c) {
  if (state_ == State::string_escape) {
    if (c == '\\') return end_string();
    // Any other escape ends the string without it, so that output is not swallowed for good.
    start_escape();
    return byte(c);
  }
  if (c == 0x1B) {
    state_ = State::string_escape;
  } else if (c == 0x18 || c == 0x1A) {
    state_ = State::text;
  } else if (c == 0x07 && keeps_string_) {
    end_string();
  } else if (keeps_string_ && string_.size() < kMaxString) {
    string_ += static_cast<char>(c);
  }
}

void TerminalFilter::end_string() {
  state_ = State::text;
  if (keeps_string_ && (string_.starts_with("0;") || string_.starts_with("2;")))
    title_ = clean_title(std::string_view(string_).substr(2));
}

// -- control sequences
// ---------------------------------------------------------------------------------------

void TerminalFilter::sequence(uint8_t c) {
  if (c >= 0x40) {
    state_ = State::text;
    if (!unknown_) run_sequence(c);
  } else if (c < 0x30) {
    unknown_ = unknown_ || intermediate_;
    intermediate_ = c;
  } else if (c >= 0x3C) {
    unknown_ = unknown_ || leader_ || parameter_count_;
    leader_ = c;
  } else if (c == ':') {
    unknown_ = true;  // parts of a parameter, which only colours have
  } else {
    if (parameter_count_ == 0) parameter_count_ = 1;
    if (c == ';') {
      ++parameter_count_;
      unknown_ = unknown_ || parameter_count_ > kMaxParameters;
    } else if (!unknown_) {
      int& value = parameters_[parameter_count_ - 1];
      value = std::min(std::max(value, 0) * 10 + (c - '0'), kMaxNumber);
    }
  }
}

int TerminalFilter::parameter(size_t i, int missing) const noexcept {
  return parameters_[i] == kMissing ? missing : parameters_[i];
}

void TerminalFilter::run_sequence(uint8_t final) {
  if (leader_ == 0 && intermediate_ == 0) {
    run_plain(final);
  } else if (leader_ == '?') {
    run_private(final);
  } else if (leader_ == '>' && intermediate_ == 0 && final == 'c' && parameter(0, 0) == 0) {
    emit("\033[>c");  // what kind of terminal it is
  }
}

void TerminalFilter::run_plain(uint8_t final) {
  switch (final) {
    case 'h':
    case 'l':
      return set_modes(final);
    case 'b':
      return repeat();
    case 's':
      // To libvterm these are margins.
      if (parameter_count_ == 0) emit("\0337");
      return;
    case 'u':
      if (parameter_count_ == 0) emit("\033[?1048l");
      return;
    case 't':
      return title_stack();
    case 'n':
      if (parameter(0, 0) == 5) emit("\033[5n");
      if (parameter(0, 0) == 6) emit("\033[6n");
      return;
    case 'T':
      if (parameter_count_ > 1) return;  // mouse tracking
      break;
    default:
      break;
  }
  constexpr std::string_view kKnown = "@ABCDEFGHIJKLMPSTXZ`acdefgjkr";
  if (kKnown.find(static_cast<char>(final)) == kKnown.npos) return;
  std::string token = "\033[";
  if (parameters_[0] != kMissing) token += std::to_string(parameters_[0]);
  if (parameters_[1] != kMissing) token += ";" + std::to_string(parameters_[1]);
  emit(token + static_cast<char>(final));
}

void TerminalFilter::run_private(uint8_t final) {
  if (intermediate_ == 0 && (final == 'h' || final == 'l')) return set_modes(final);
  if (intermediate_ == 0 && final == 'n' && parameter(0, 0) == 6) return emit("\033[?6n");
  if (intermediate_ == '$' && final == 'p' && parameters_[0] != kMissing)
    emit("\033[?" + std::to_string(parameters_[0]) + "$p");
}

/// libvterm heeds only the first of several modes in one sequence, and does not know the old number of the
/// alternate screen.
void TerminalFilter::set_modes(uint8_t final) {
  for (size_t i = 0; i < parameter_count_; ++i) {
    const int mode = parameters_[i];
    if (leader_ == 0) {
      // Insert mode, new line mode.
      if (mode == 4 || mode == 20) emit("\033[" + std::to_string(mode) + static_cast<char>(final));
      continue;
    }
    // Cursor keys, origin, wrapping, cursor visible, alternate screen and saved cursor, bracketed paste.
    constexpr int kModes[] = {1, 6, 7, 25, 47, 1047, 1048, 1049, 2004};
    if (std::find(std::begin(kModes), std::end(kModes), mode) == std::end(kModes)) continue;
    emit("\033[?" + std::to_string(mode == 47 ? 1047 : mode) + static_cast<char>(final));
  }
}

/// Done here: libvterm's own writes a wide character half outside the line, and never ends when the last
/// character has no width.
void TerminalFilter::repeat() {
  if (last_ == 0) return;
  std::string token;
  append_utf8(token, last_);
  marks_ = 0;
  for (int i = std::min(std::max(parameter(0, 1), 1), columns_); i > 0; --i) emit(token);
}

/// Programs save the title when they start and restore it when they end.
void TerminalFilter::title_stack() {
  if (parameter(1, 0) != 0 && parameter(1, 0) != 2) return;
  if (parameter(0, 0) == 22 && titles_count_ < titles_.size()) titles_[titles_count_++] = title_;
  if (parameter(0, 0) == 23 && titles_count_ > 0) title_ = titles_[--titles_count_];
}

}  // namespace hutch::sandbox
