#include "sandbox/terminal.h"

#include <fmt/format.h>
#include <vterm.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "sandbox/terminal_filter.h"
#include "sandbox/terminal_grid.h"
#include "sandbox/terminal_keys.h"

namespace hutch::sandbox {

namespace {

void check_size(int rows, int columns) {
  for (const auto& [name, value] : {std::pair{"rows", rows}, std::pair{"columns", columns}})
    if (value < 1 || value > Terminal::kMaxSize)
      throw Error(Errc::invalid_argument,
                  fmt::format("a terminal has 1 to {} {}, not {}", Terminal::kMaxSize, name, value));
}

}  // namespace

/// libvterm keeps the cursor and the modes; what is on the screens is kept here. Its callbacks are C: nothing
/// may be thrown through them, so running out of memory in one ends the program, as it would inside libvterm.
struct Terminal::State {
  State(int rows, int columns);

  void resize(int rows, int columns);
  void to_library(std::string_view piece) { vterm_input_write(vt.get(), piece.data(), piece.size()); }
  VTermPos cursor() const;
  TerminalGrid& shown() { return alternate ? other : normal; }
  void push(std::string line);

  static const VTermStateCallbacks kCallbacks;
  static int on_glyph(VTermGlyphInfo* glyph, VTermPos at, void* self) noexcept;
  static int on_scroll(VTermRect rect, int downward, int rightward, void* self) noexcept;
  static int on_erase(VTermRect rect, int selective, void* self) noexcept;
  static int on_property(VTermProp property, VTermValue* value, void* self) noexcept;
  static int on_resize(int rows, int columns, VTermPos* delta, void* self) noexcept;
  static void on_answer(const char* bytes, size_t size, void* self) noexcept;

  TerminalGrid normal, other;
  bool alternate = false, cursor_visible = true;
  std::deque<std::string> scrolled;
  size_t dropped = 0;
  std::string answer;
  TerminalFilter filter;
  TerminalGrid::Sink off_normal, off_other;
  std::unique_ptr<VTerm, void (*)(VTerm*)> vt;
  VTermState* library = nullptr;  // belongs to vt
};

const VTermStateCallbacks Terminal::State::kCallbacks = {
    .putglyph = on_glyph,
    .movecursor = nullptr,
    .scrollrect = on_scroll,
    .moverect = nullptr,
    .erase = on_erase,
    .initpen = nullptr,
    .setpenattr = nullptr,
    .settermprop = on_property,
    .bell = nullptr,
    .resize = on_resize,
    .setlineinfo = nullptr,
};

Terminal::State::State(int rows, int columns)
    : normal(rows, columns),
      other(rows, columns),
      filter([this](std::string_view piece) { to_library(piece); }),
      off_normal([this](std::string line) { push(std::move(line)); }),
      off_other([](std::string) {}),
      vt(vterm_new(rows, columns), vterm_free) {
  filter.set_columns(columns);
  vterm_set_utf8(vt.get(), 1);
  vterm_output_set_callback(vt.get(), on_answer, this);
  library = vterm_obtain_state(vt.get());
  vterm_state_set_callbacks(library, &kCallbacks, this);
  vterm_state_reset(library, 1);
  // A restore before the first save would hide the cursor.
  to_library("\0337");
}

VTermPos Terminal::State::cursor() const {
  VTermPos at;
  vterm_state_get_cursorpos(library, &at);
  return at;
}

void Terminal::State::push(std::string line) {
  if (scrolled.size() == kMaxScrolled) {
    scrolled.pop_front();
    ++dropped;
  }
  scrolled.push_back(std::move(line));
}

void Terminal::State::resize(int rows, int columns) {
  filter.set_columns(columns);
  vterm_set_size(vt.get(), rows, columns);
  // libvterm leaves the top of the scrolling region where it was, which may now be below its bottom: the next
  // line feed would move a negative amount of memory. As in xterm a new size ends the region; that moves the
  // cursor, so it is put back.
  const VTermPos at = cursor();
  to_library("\033[r");
  to_library(fmt::format("\033[{};{}H", at.row + 1, at.col + 1));
}

int Terminal::State::on_glyph(VTermGlyphInfo* glyph, VTermPos at, void* self) noexcept {
  static_cast<State*>(self)->shown().put(at.row, at.col, glyph->chars, glyph->width);
  return 1;
}

int Terminal::State::on_scroll(VTermRect rect, int downward, int rightward, void* self) noexcept {
  State& state = *static_cast<State*>(self);
  // Rectangles always reach to the right edge, since margins never reach libvterm.
  if (rightward) {
    state.shown().shift(rect.start_row, rect.end_row, rect.start_col, rightward);
  } else {
    state.shown().scroll(rect.start_row, rect.end_row, downward,
                         state.alternate ? state.off_other : state.off_normal);
  }
  return 1;
}

int Terminal::State::on_erase(VTermRect rect, int, void* self) noexcept {
  static_cast<State*>(self)->shown().erase(rect.start_row, rect.end_row, rect.start_col, rect.end_col);
  return 1;
}

int Terminal::State::on_property(VTermProp property, VTermValue* value, void* self) noexcept {
  State& state = *static_cast<State*>(self);
  if (property == VTERM_PROP_ALTSCREEN) state.alternate = value->boolean;
  if (property == VTERM_PROP_CURSORVISIBLE) state.cursor_visible = value->boolean;
  return 1;
}

int Terminal::State::on_resize(int rows, int columns, VTermPos* delta, void* self) noexcept {
  State& state = *static_cast<State*>(self);
  const int row = state.cursor().row;
  const int up = state.normal.resize(rows, columns, state.alternate ? -1 : row, state.off_normal);
  const int other_up = state.other.resize(rows, columns, state.alternate ? row : -1, state.off_other);
  delta->row -= state.alternate ? other_up : up;
  return 1;
}

void Terminal::State::on_answer(const char* bytes, size_t size, void* self) noexcept {
  std::string& answer = static_cast<State*>(self)->answer;
  // Whole answers only.
  if (answer.size() + size <= kMaxAnswer) answer.append(bytes, size);
}

Terminal::Terminal(int rows, int columns) {
  check_size(rows, columns);
  state_ = std::make_unique<State>(rows, columns);
}

Terminal::~Terminal() = default;

std::string Terminal::feed(std::string_view bytes) {
  state_->filter.feed(bytes);
  return std::exchange(state_->answer, {});
}

void Terminal::resize(int rows, int columns) {
  check_size(rows, columns);
  state_->resize(rows, columns);
}

Screen Terminal::screen() const {
  Screen screen;
  const TerminalGrid& grid = state_->shown();
  for (int row = 0; row < grid.rows(); ++row) screen.lines.push_back(grid.line(row));
  while (!screen.lines.empty() && screen.lines.back().empty()) screen.lines.pop_back();
  const VTermPos at = state_->cursor();
  screen.cursor_row = at.row + 1;
  screen.cursor_column = at.col + 1;
  screen.cursor_visible = state_->cursor_visible;
  screen.alternate = state_->alternate;
  screen.title = state_->filter.title();
  return screen;
}

Scrolled Terminal::take_scrolled() {
  Scrolled result;
  result.lines.assign(std::make_move_iterator(state_->scrolled.begin()),
                      std::make_move_iterator(state_->scrolled.end()));
  result.dropped = std::exchange(state_->dropped, 0);
  state_->scrolled.clear();
  return result;
}

std::string Terminal::keys(std::string_view text) {
  return typed(text, [this](VTermKey key, VTermModifier modifiers) {
    vterm_keyboard_key(state_->vt.get(), key, modifiers);
    return std::exchange(state_->answer, {});
  });
}

}  // namespace hutch::sandbox
