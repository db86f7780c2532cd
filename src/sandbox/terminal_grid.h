#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

namespace hutch::sandbox {

/// The characters of one screen. Rows and columns from 0; whatever lies outside is left out.
///
/// In place of libvterm's own screen, which copies every cell when a line scrolls (a flood of line feeds on a
/// large screen takes hours), cannot tell half of an overwritten wide character from a narrow one, and leaves
/// the cursor above the screen when it shrinks. Here a row is as long as what is written in it: emptying and
/// scrolling cost what is there, not what could be.
class TerminalGrid {
 public:
  /// Takes a line that leaves the screen at the top.
  using Sink = std::function<void(std::string)>;

  TerminalGrid(int rows, int columns) : columns_(columns), rows_(rows) {}

  /// `characters`: one and its combining marks, ends with 0. `width`: 1 or 2 columns.
  void put(int row, int column, const uint32_t* characters, int width);
  /// From `left` to `right`, which is not erased itself.
  void erase(int top, int bottom, int left, int right);
  /// Up by `count` rows, or down when it is negative. Lines that leave the whole screen's top go to the sink.
  void scroll(int top, int bottom, int count, const Sink& off);
  /// What stands right of `left` moves left by `count` columns, or right when it is negative.
  void shift(int top, int bottom, int left, int count);
  /// Gives up blank rows below the cursor first, then rows at the top, which go to the sink, then what is
  /// below the cursor. `cursor_row` is -1 for a screen that is not shown. Returns by how many rows all moved
  /// up.
  int resize(int rows, int columns, int cursor_row, const Sink& off);

  int rows() const noexcept { return static_cast<int>(rows_.size()); }
  /// Without trailing blanks; valid UTF-8 without control characters as far as what was put is.
  std::string line(int row) const;

 private:
  struct Cell {
    std::array<char32_t, 4> characters{};  // all 0: blank
    bool tail = false;                     // the right half of a wide character
  };
  using Row = std::vector<Cell>;  // columns beyond its length are blank

  /// Blanks a wide character that lies across the border left of `column`.
  static void split(Row& row, int column);
  static bool blank(const Row& row);

  int columns_;
  std::deque<Row> rows_;  // for the whole screen scrolling by a line, which is what mostly happens
};

}  // namespace hutch::sandbox
