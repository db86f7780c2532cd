/// Feeds hostile output, changes of size and typed keys to a terminal. Whatever comes, the screen must be
/// text of the right size and libvterm, which trusts its input, must stay whole.
///
/// The input is a list of steps: a byte that says what, one that says how much, then the bytes for it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "sandbox/terminal.h"
#include "schema/text.h"

namespace {

using namespace hutch;

void check_text(const std::string& text) {
  if (schema::valid_utf8(text) != text) std::abort();
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<uint8_t>(text[i]);
    if (c < 0x20 || c == 0x7F) std::abort();
    if (c == 0xC2 && static_cast<uint8_t>(text[i + 1]) < 0xA0) std::abort();
  }
}

void check(const sandbox::Terminal& terminal, int rows, int columns) {
  const sandbox::Screen screen = terminal.screen();
  if (screen.lines.size() > static_cast<size_t>(rows)) std::abort();
  if (screen.cursor_row < 1 || screen.cursor_row > rows) std::abort();
  if (screen.cursor_column < 1 || screen.cursor_column > columns) std::abort();
  if (!screen.lines.empty() && screen.lines.back().empty()) std::abort();
  for (const std::string& line : screen.lines) {
    check_text(line);
    // One character of at most two columns with three marks in each cell.
    if (line.size() > static_cast<size_t>(columns) * 16) std::abort();
  }
  check_text(screen.title);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  int rows = 6, columns = 12;
  sandbox::Terminal terminal(rows, columns);
  while (size >= 2) {
    const uint8_t step = data[0];
    const size_t length = std::min<size_t>(data[1], size - 2);
    const std::string_view bytes(reinterpret_cast<const char*>(data + 2), length);
    data += 2 + length;
    size -= 2 + length;
    if (step % 8 == 0 && length >= 2) {
      rows = 1 + static_cast<uint8_t>(bytes[0]) % 40;
      columns = 1 + static_cast<uint8_t>(bytes[1]) % 100;
      terminal.resize(rows, columns);
    } else if (step % 8 == 1) {
      if (terminal.keys(bytes).size() > bytes.size() * 4) std::abort();
    } else if (step % 8 == 2) {
      for (const std::string& line : terminal.take_scrolled().lines) check_text(line);
    } else if (terminal.feed(bytes).size() > sandbox::Terminal::kMaxAnswer) {
      std::abort();
    }
    check(terminal, rows, columns);
  }
  return 0;
}
