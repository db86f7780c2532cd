#include "sandbox/terminal_grid.h"

#include <algorithm>

#include "sandbox/terminal_filter.h"

namespace hutch::sandbox {

namespace {

int length(const auto& row) {
  return static_cast<int>(row.size());
}

}  // namespace

void TerminalGrid::split(Row& row, int column) {
  if (column <= 0 || column >= length(row) || !row[column].tail) return;
  row[column - 1] = {};
  row[column] = {};
}

bool TerminalGrid::blank(const Row& row) {
  return std::all_of(row.begin(), row.end(), [](const Cell& cell) {
    return !cell.tail && (cell.characters[0] == 0 || cell.characters[0] == U' ');
  });
}

void TerminalGrid::put(int row, int column, const uint32_t* characters, int width) {
  // No width: a combining mark with nothing before it.
  if (row < 0 || row >= rows() || column < 0 || column >= columns_ || width < 1) return;
  // A wide character on a screen of one column.
  width = std::min({width, 2, columns_ - column});
  Row& cells = rows_[row];
  split(cells, column);
  split(cells, column + width);
  if (length(cells) < column + width) cells.resize(column + width);
  Cell& cell = cells[column];
  cell = {};
  for (size_t i = 0; i < cell.characters.size() && characters[i]; ++i) cell.characters[i] = characters[i];
  if (width == 2) {
    cells[column + 1] = {};
    cells[column + 1].tail = true;
  }
}

void TerminalGrid::erase(int top, int bottom, int left, int right) {
  left = std::max(left, 0);
  for (int i = std::max(top, 0); i < std::min(bottom, rows()); ++i) {
    Row& row = rows_[i];
    const int end = std::min(right, length(row));
    if (left >= end) continue;
    split(row, left);
    split(row, end);
    if (end == length(row)) {
      row.resize(left);
    } else {
      std::fill(row.begin() + left, row.begin() + end, Cell{});
    }
  }
}

void TerminalGrid::scroll(int top, int bottom, int count, const Sink& off) {
  top = std::max(top, 0);
  bottom = std::min(bottom, rows());
  if (top >= bottom) return;
  const int moved = std::min(std::abs(count), bottom - top);
  if (count > 0 && top == 0)
    for (int i = 0; i < moved; ++i) off(line(i));
  if (count > 0 && top == 0 && bottom == rows()) {
    rows_.erase(rows_.begin(), rows_.begin() + moved);
    rows_.resize(bottom);
    return;
  }
  const auto first = rows_.begin() + top, last = rows_.begin() + bottom;
  if (count > 0) {
    std::rotate(first, first + moved, last);
    std::for_each(last - moved, last, [](Row& row) { row.clear(); });
  } else {
    std::rotate(first, last - moved, last);
    std::for_each(first, first + moved, [](Row& row) { row.clear(); });
  }
}

void TerminalGrid::shift(int top, int bottom, int left, int count) {
  left = std::max(left, 0);
  for (int i = std::max(top, 0); i < std::min(bottom, rows()); ++i) {
    Row& row = rows_[i];
    if (left >= length(row)) continue;
    split(row, left);
    if (count > 0) {
      const int end = std::min(left + count, length(row));
      split(row, end);
      row.erase(row.begin() + left, row.begin() + end);
    } else {
      row.insert(row.begin() + left, std::min(-count, columns_ - left), Cell{});
      split(row, columns_);
      if (length(row) > columns_) row.resize(columns_);
    }
  }
}

int TerminalGrid::resize(int rows, int columns, int cursor_row, const Sink& off) {
  int last = this->rows() - 1;
  while (last > cursor_row && last >= rows && blank(rows_[last])) --last;
  rows_.resize(last + 1);
  // Never the cursor's own line.
  const int up = std::clamp(last + 1 - rows, 0, cursor_row < 0 ? last : cursor_row);
  scroll(0, this->rows(), up, off);
  rows_.resize(rows);
  for (Row& row : rows_) {
    split(row, columns);
    if (length(row) > columns) row.resize(columns);
  }
  columns_ = columns;
  return up;
}

std::string TerminalGrid::line(int row) const {
  std::string text;
  for (const Cell& cell : rows_[row]) {
    if (cell.tail) continue;
    if (cell.characters[0] == 0) text += ' ';
    for (const char32_t c : cell.characters)
      if (c) append_utf8(text, c);
  }
  text.resize(text.find_last_not_of(' ') + 1);
  return text;
}

}  // namespace hutch::sandbox
