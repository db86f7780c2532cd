#include "sandbox/terminal.h"

#include <doctest/doctest.h>

#include <numeric>
#include <random>

#include "sandbox/terminal_filter.h"
#include "schema/text.h"
#include "support.h"

using hutch::sandbox::Screen;
using hutch::sandbox::Terminal;
using hutch::sandbox::TerminalFilter;
using Rows = std::vector<std::string>;

namespace {

Rows screen_of(std::string_view bytes, int rows = 5, int columns = 20) {
  Terminal terminal(rows, columns);
  terminal.feed(bytes);
  return terminal.screen().lines;
}

std::string repeated(std::string_view text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

/// What must hold whatever was fed.
void check_sound(const Terminal& terminal, int rows, int columns) {
  const Screen screen = terminal.screen();
  CHECK(screen.lines.size() <= static_cast<size_t>(rows));
  CHECK((screen.cursor_row >= 1 && screen.cursor_row <= rows));
  CHECK((screen.cursor_column >= 1 && screen.cursor_column <= columns));
  for (const std::string& line : screen.lines) {
    CHECK(hutch::schema::valid_utf8(line) == line);
    for (const char c : line) CHECK((static_cast<uint8_t>(c) >= 0x20 && c != 0x7F));
    CHECK_FALSE(line.ends_with(' '));
  }
}

std::string random_bytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

/// Mostly sequences, with numbers that mean something and some that do not.
std::string random_sequences(int count, uint32_t seed) {
  std::mt19937 random(seed);
  constexpr std::string_view kFinals = "@ABCDEFGHIJKLMPSTXZ`abcdefghjklmnpqrstu";
  constexpr int kNumbers[] = {0, 1, 2, 3, 6, 7, 25, 47, 1047, 1049, 9999, 2147483647};
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    bytes += "\033[";
    if (random() % 4 == 0) bytes += '?';
    for (auto n = random() % 3; n > 0; --n)
      bytes += std::to_string(kNumbers[random() % std::size(kNumbers)]) + (n > 1 ? ";" : "");
    bytes += kFinals[random() % kFinals.size()];
    constexpr std::string_view kTexts[] = {"a",  "世", "e\u0301", "\n",    "\r\n",
                                           "\t", "\b", "\0338",   "\0337", "\033M"};
    bytes += kTexts[random() % std::size(kTexts)];
  }
  return bytes;
}

}  // namespace

TEST_SUITE("terminal screen") {
  TEST_CASE("text, line ends and cursor") {
    Terminal terminal(5, 20);
    CHECK(terminal.screen().lines.empty());
    terminal.feed("one\r\ntwo  \r\n\r\n");
    const Screen screen = terminal.screen();
    CHECK(screen.lines == Rows{"one", "two"});
    CHECK(screen.cursor_row == 4);
    CHECK(screen.cursor_column == 1);
    CHECK(screen.cursor_visible);
    CHECK_FALSE(screen.alternate);
    CHECK(screen.title.empty());
  }

  TEST_CASE("a line that is too long goes on in the next row, and only when there is more") {
    CHECK(screen_of("abcdefgh", 5, 4) == Rows{"abcd", "efgh"});
    CHECK(screen_of("abcd\r\nx", 5, 4) == Rows{"abcd", "x"});
    CHECK(screen_of("\033[?7labcdefgh", 5, 4) == Rows{"abch"});
  }

  TEST_CASE("positions, erasing, inserting and deleting") {
    CHECK(screen_of("\033[3;5Hx\033[Hy") == Rows{"y", "", "    x"});
    CHECK(screen_of("abcdef\033[3D\033[K") == Rows{"abc"});
    CHECK(screen_of("abcdef\033[3D\033[1K") == Rows{"    ef"});
    CHECK(screen_of("abcdef\033[4D\033[2P") == Rows{"abef"});
    CHECK(screen_of("abcdef\033[4D\033[2@") == Rows{"ab  cdef"});
    CHECK(screen_of("abcdef\033[4D\033[2X") == Rows{"ab  ef"});
    CHECK(screen_of("abcd\r\033[4hxy", 5, 4) == Rows{"xyab"});
    CHECK(screen_of("a\r\nb\r\nc\033[2;1H\033[L") == Rows{"a", "", "b", "c"});
    CHECK(screen_of("a\r\nb\r\nc\033[2;1H\033[M") == Rows{"a", "c"});
    CHECK(screen_of("a\r\nb\r\nc\033[2;1H\033[J") == Rows{"a"});
    CHECK(screen_of("a\r\nb\033[2J") == Rows{});
    CHECK(screen_of("a\tb\tc") == Rows{"a       b       c"});
    CHECK(screen_of("ab\033[5bc") == Rows{"abbbbbbc"});
    CHECK(screen_of("\033[5bc") == Rows{"c"});
  }

  TEST_CASE("a scrolling region leaves the rest alone") {
    CHECK(screen_of("1\r\n2\r\n3\r\n4\r\n5\033[2;4r\033[4;1H\nx") == Rows{"1", "3", "4", "x", "5"});
    CHECK(screen_of("1\r\n2\r\n3\r\n4\r\n5\033[2;4r\033[2;1H\033Mx") == Rows{"1", "x", "2", "3", "5"});
  }

  TEST_CASE("the alternate screen comes and goes without a trace") {
    Terminal terminal(5, 20);
    terminal.feed("$ vim\033[?1049h\033[H~\r\n~");
    CHECK(terminal.screen().alternate);
    CHECK(terminal.screen().lines == Rows{"~", "~"});
    terminal.feed(repeated("x\r\n", 20));
    CHECK(terminal.take_scrolled().lines.empty());
    terminal.feed("\033[?1049l");
    const Screen screen = terminal.screen();
    CHECK_FALSE(screen.alternate);
    CHECK(screen.lines == Rows{"$ vim"});
    CHECK(screen.cursor_column == 6);
  }

  TEST_CASE("a reset ends the alternate screen, the title and the modes") {
    Terminal terminal(5, 20);
    terminal.feed("a\033]2;t\a\033[?1049h\033[?25l\033[?1hb\033c");
    CHECK_FALSE(terminal.screen().alternate);
    CHECK(terminal.screen().lines.empty());
    CHECK(terminal.screen().title.empty());
    CHECK(terminal.screen().cursor_visible);
    CHECK(terminal.keys("<up>") == "\033[A");
  }

  TEST_CASE("the cursor can be hidden, also as one of several modes") {
    Terminal terminal(5, 20);
    terminal.feed("\033[?12;25l");
    CHECK_FALSE(terminal.screen().cursor_visible);
    terminal.feed("\033[?12;25h");
    CHECK(terminal.screen().cursor_visible);
    terminal.feed("\0338");
    CHECK(terminal.screen().cursor_visible);
  }

  TEST_CASE("the line drawing set") {
    CHECK(screen_of("\033(0lqk\033(Blqk \016x\017x") == Rows{"┌─┐lqk xx"});
  }

  TEST_CASE("colours, mouse modes and what nobody knows leave nothing on the screen") {
    CHECK(screen_of("\033[1;31ma\033[38:2::1:2:3mb\033[?1000;1006hc\033[>4;2md\033P+q544e\033\\e\033_"
                    "G\033\\f\033#6g\033%Gh") == Rows{"abcdefgh"});
  }
}

TEST_SUITE("terminal characters") {
  TEST_CASE("wide characters take two columns, and half of one is none") {
    CHECK(screen_of("世界a") == Rows{"世界a"});
    CHECK(screen_of("世界a\033[1;5Hb") == Rows{"世界b"});
    CHECK(screen_of("世界a\033[1;1Hb") == Rows{"b 界a"});
    CHECK(screen_of("世界a\033[1;2Hb") == Rows{" b界a"});
    CHECK(screen_of("世界a\033[1;2H─") == Rows{" ─界a"});
    CHECK(screen_of("世界a\033[1;2H\033[P") == Rows{" 界a"});
    CHECK(screen_of("世界a\033[1;4H\033[K") == Rows{"世"});
    CHECK(screen_of("世界a\033[1;2H\033[2X") == Rows{"    a"});
    CHECK(screen_of("abc世", 5, 4) == Rows{"abc", "世"});
    CHECK(screen_of("a世b\r\033[@", 5, 4) == Rows{" a世"});
    CHECK(screen_of("a世b\r\033[2@", 5, 4) == Rows{"  a"});
    CHECK(screen_of("😀x\033[1;3Hy") == Rows{"😀y"});
    Terminal terminal(5, 20);
    terminal.feed("世");
    CHECK(terminal.screen().cursor_column == 3);
  }

  TEST_CASE("a wide character on a screen of one column does no harm") {
    CHECK(screen_of("世a", 3, 1) == Rows{"", "世", "a"});
  }

  TEST_CASE("combining characters stay with theirs, also when they come later") {
    CHECK(screen_of("e\u0301x") == Rows{"e\u0301x"});
    Terminal terminal(5, 20);
    terminal.feed("e");
    terminal.feed("\u0301x");
    CHECK(terminal.screen().lines == Rows{"e\u0301x"});
    CHECK(terminal.screen().cursor_column == 3);
    CHECK(screen_of("\u0301a") == Rows{"a"});
  }

  TEST_CASE("a tower of accents is cut, wherever the cursor goes in between") {
    CHECK(screen_of("e" + repeated("\u0301", 100'000) + "x") == Rows{"e\u0301\u0301\u0301x"});
    CHECK(screen_of("e" + repeated("\u0301\b\033[C", 10'000)).front().size() <= 1 + 3 * 2);
  }

  TEST_CASE("invalid UTF-8 becomes replacement characters") {
    CHECK(screen_of("a\xFF\xC3(b") == Rows{"a\uFFFD\uFFFD(b"});
    CHECK(screen_of("\xC0\x80\xED\xA0\x80\xF5\x80") == Rows{repeated("\uFFFD", 7)});
    CHECK(screen_of("\xE4\xB8\033[Ca") == Rows{"\uFFFD a"});
    CHECK(screen_of("\xE4\xB8") == Rows{});
  }

  TEST_CASE("characters that are controls or end a line are left out") {
    CHECK(screen_of("a\u0080\u009B31m\u0085b\x7F\x01\x05") == Rows{"a31mb"});
    CHECK(screen_of("a\u2028\u2029"
                    "b") == Rows{"ab"});
    // Each of these moves libvterm's cursor one column out of the screen.
    Terminal terminal(3, 3);
    terminal.feed(repeated("\u0080", 1000) + "\033[K");
    check_sound(terminal, 3, 3);
  }

  TEST_CASE("it makes no difference where the output is cut") {
    const std::string all =
        "世e\u0301😀\r\n\033[?25l\033[2;4Hx\033]2;tïtle\033\\\033P1$r\033\\y\033(0q\033(B\xE4\xFFz\033["
        "3b\0337";
    Terminal whole(5, 20), bytes(5, 20);
    whole.feed(all);
    for (const char c : all) bytes.feed({&c, 1});
    CHECK(whole.screen().lines == bytes.screen().lines);
    CHECK(whole.screen().title == "tïtle");
    CHECK(bytes.screen().title == "tïtle");
    CHECK(bytes.screen().cursor_column == whole.screen().cursor_column);
    CHECK_FALSE(bytes.screen().cursor_visible);
  }
}

TEST_SUITE("terminal title and answers") {
  TEST_CASE("the title has no control characters, and an end") {
    Terminal terminal(5, 20);
    const auto title = [&](const std::string& text) {
      terminal.feed("\033]0;" + text + "\033\\");
      return terminal.screen().title;
    };
    CHECK(title("vim – a.txt") == "vim – a.txt");
    CHECK(title("a\nb\x01\u0085\xFF") == "ab\uFFFD");
    CHECK(hutch::schema::count_characters(title(repeated("世", 500))) == 200);
    CHECK(title("") == "");
    terminal.feed("\033]1;icon\a\033]52;c;QUJD\a\033]8;;http://a/\a");
    CHECK(terminal.screen().title == "");
    CHECK(terminal.screen().lines.empty());
  }

  TEST_CASE("a program that saves the title gets it back") {
    Terminal terminal(5, 20);
    terminal.feed("\033]2;shell\a\033[22;0;0t\033]2;editor\a");
    CHECK(terminal.screen().title == "editor");
    terminal.feed("\033[23;0;0t\033[23;0;0t");
    CHECK(terminal.screen().title == "shell");
  }

  TEST_CASE("a string without end is not kept, and the next sequence ends it") {
    Terminal terminal(5, 20);
    for (const char* kind : {"\033]2;", "\033P", "\033_"}) {
      terminal.feed(kind);
      for (int i = 0; i < 100; ++i) terminal.feed(std::string(64 * 1024, 'x'));
      terminal.feed("\033[2Jshown");
      CHECK(terminal.screen().lines.back().ends_with("shown"));
    }
    CHECK(terminal.screen().title.empty());
  }

  TEST_CASE("questions are answered, and not without bound") {
    Terminal terminal(5, 20);
    CHECK(terminal.feed("abc\033[6n") == "\033[1;4R");
    CHECK(terminal.feed("\033[5n") == "\033[0n");
    CHECK(terminal.feed("\033[c").starts_with("\033[?1;2c"));
    CHECK(terminal.feed("\033[>c").starts_with("\033[>0;"));
    CHECK(terminal.feed("\033[?2004h\033[?2004$p") == "\033[?2004;1$y");
    CHECK(terminal.feed("no question") == "");
    const std::string flood = terminal.feed(repeated("\033[6n", 100'000));
    CHECK(flood.size() <= Terminal::kMaxAnswer);
    CHECK(flood.ends_with("R"));
  }
}

TEST_SUITE("terminal past") {
  TEST_CASE("lines that scroll off are handed out once") {
    Terminal terminal(3, 20);
    terminal.feed("1\r\n2 \r\n3\r\n4\r\n5");
    CHECK(terminal.take_scrolled().lines == Rows{"1", "2"});
    CHECK(terminal.take_scrolled().lines.empty());
    terminal.feed("\r\n6");
    CHECK(terminal.take_scrolled().lines == Rows{"3"});
    CHECK(terminal.screen().lines == Rows{"4", "5", "6"});
  }

  TEST_CASE("at most kMaxScrolled lines are kept, the newest, and the rest is counted") {
    Terminal terminal(3, 20);
    for (int i = 0; i < 10'000; ++i) terminal.feed(std::to_string(i) + "\r\n");
    const auto scrolled = terminal.take_scrolled();
    CHECK(scrolled.lines.size() == Terminal::kMaxScrolled);
    CHECK(scrolled.lines.back() == "9997");
    CHECK(scrolled.dropped == 9998 - Terminal::kMaxScrolled);
    CHECK(terminal.take_scrolled().dropped == 0);
  }

  TEST_CASE("a flood of line feeds on the largest screen takes no time") {
    Terminal terminal(Terminal::kMaxSize, Terminal::kMaxSize);
    terminal.feed(std::string(2'000'000, '\n'));
    CHECK(terminal.take_scrolled().dropped > 1'000'000);
  }
}

TEST_SUITE("terminal size") {
  TEST_CASE("sizes out of range are refused") {
    CHECK_CONTAINS(hutch::test::error_of([] { Terminal(0, 80); }), "1 to 500 rows, not 0");
    CHECK_CONTAINS(hutch::test::error_of([] { Terminal(24, 501); }), "1 to 500 columns, not 501");
    Terminal terminal(5, 20);
    CHECK_CONTAINS(hutch::test::error_of([&] { terminal.resize(-1, 20); }), "rows");
    terminal.feed("a");
    CHECK(terminal.screen().lines == Rows{"a"});
  }

  TEST_CASE("blank rows go first, then those at the top") {
    Terminal terminal(5, 20);
    terminal.feed("1\r\n2\r\n3");
    terminal.resize(3, 20);
    CHECK(terminal.screen().lines == Rows{"1", "2", "3"});
    CHECK(terminal.screen().cursor_row == 3);
    terminal.resize(2, 20);
    CHECK(terminal.screen().lines == Rows{"2", "3"});
    CHECK(terminal.screen().cursor_row == 2);
    CHECK(terminal.take_scrolled().lines == Rows{"1"});
    terminal.resize(5, 20);
    CHECK(terminal.screen().lines == Rows{"2", "3"});
  }

  TEST_CASE("the cursor stays on the screen when all that is written is below it") {
    Terminal terminal(20, 20);
    terminal.feed(repeated("x\r\n", 19) + "y\033[3;1H");
    terminal.resize(5, 20);
    check_sound(terminal, 5, 20);
    CHECK(terminal.screen().cursor_row == 1);
    terminal.feed("here\033[4h\033[2Jz");
    check_sound(terminal, 5, 20);
  }

  TEST_CASE("a scrolling region and a saved cursor beyond the new size do no harm") {
    Terminal terminal(20, 40);
    terminal.feed("\033[10;20r\033[20;40H\0337x");
    terminal.resize(5, 5);
    terminal.feed("\n\n\n\0338a\033[L\033[4hb\033[?1049l\033[Kc\033[u\nd");
    check_sound(terminal, 5, 5);
  }

  TEST_CASE("narrower cuts, also through a wide character") {
    Terminal terminal(3, 20);
    terminal.feed("abc世def");
    terminal.resize(3, 4);
    CHECK(terminal.screen().lines == Rows{"abc"});
    terminal.resize(3, 20);
    CHECK(terminal.screen().lines == Rows{"abc"});
  }

  TEST_CASE("a new size under a full-screen program keeps the shell's end") {
    Terminal terminal(5, 20);
    terminal.feed("1\r\n2\r\n3\r\n4\r\n$ vim\033[?1049h\033[2J\033[5;1Hstatus");
    terminal.resize(3, 20);
    check_sound(terminal, 3, 20);
    terminal.feed("\033[?1049l");
    CHECK(terminal.screen().lines == Rows{"3", "4", "$ vim"});
    CHECK(terminal.screen().cursor_row == 3);
    CHECK(terminal.take_scrolled().lines == Rows{"1", "2"});
  }

  TEST_CASE("a storm of sizes") {
    std::mt19937 random(7);
    Terminal terminal(24, 80);
    for (int i = 0; i < 400; ++i) {
      const int rows = i % 5 ? 1 + static_cast<int>(random() % 60) : 1;
      const int columns = i % 7 ? 1 + static_cast<int>(random() % 200) : 1;
      terminal.feed(random_sequences(50, static_cast<uint32_t>(random())));
      terminal.resize(rows, columns);
      check_sound(terminal, rows, columns);
    }
  }
}

TEST_SUITE("terminal hostile output") {
  TEST_CASE("more parameters than libvterm has room for, and numbers that no integer holds") {
    for (const char* digits : {"", "1", "2147483648", "99999999999999999999"}) {
      CAPTURE(digits);
      std::string sequence = "\033[";
      for (int i = 0; i < 10'000; ++i) sequence += std::string(digits) + ";";
      for (const char final : std::string_view("mHrhlKJ@PLMSTXb")) {
        Terminal terminal(5, 20);
        terminal.feed(sequence + final + "ok\033[" + digits + ";" + digits + final + "\033[?" + digits +
                      final);
        check_sound(terminal, 5, 20);
      }
    }
  }

  TEST_CASE("random bytes") {
    Terminal terminal(24, 80);
    const std::string bytes = random_bytes(10'000'000, 1);
    for (size_t at = 0; at < bytes.size(); at += 65'536)
      terminal.feed(std::string_view(bytes).substr(at, 65'536));
    check_sound(terminal, 24, 80);
  }

  TEST_CASE("random sequences") {
    for (const int columns : {1, 2, 3, 80}) {
      Terminal terminal(10, columns);
      for (uint32_t i = 0; i < 50; ++i) {
        terminal.feed(random_sequences(200, i));
        check_sound(terminal, 10, columns);
      }
    }
  }

  TEST_CASE("libvterm gets whole characters and sequences, in small pieces") {
    std::vector<std::string> pieces;
    TerminalFilter filter([&](std::string_view piece) { pieces.emplace_back(piece); });
    filter.set_columns(80);
    filter.feed("世\xE4");
    filter.feed("\xB8\x96\033[");
    filter.feed("1");
    filter.feed(";2;3H\033[1;2;3m\033]0;t\a");
    CHECK(pieces == Rows{"世", "世", "\033[1;2H"});
    pieces.clear();
    filter.feed(repeated("世\033[12;34H", 10'000));
    for (const std::string& piece : pieces) {
      CHECK(piece.size() <= TerminalFilter::kPiece);
      CHECK(hutch::schema::valid_utf8(piece) == piece);
      CHECK((piece.ends_with("世") || piece.ends_with("H")));
    }
  }
}

TEST_SUITE("terminal keys") {
  std::string keys(std::string_view text, std::string_view before = "") {
    Terminal terminal(5, 20);
    terminal.feed(before);
    return terminal.keys(text);
  }

  TEST_CASE("text is typed as it is, and a line feed is Enter") {
    CHECK(keys("echo 'ä世' | wc\n") == "echo 'ä世' | wc\r");
    CHECK(keys("a\r\nb\rc\n\n") == "a\rb\rc\r\r");
    CHECK(keys("\x03\033[A") == "\x03\033[A");
    CHECK(keys("") == "");
    CHECK(keys(repeated("x", 100'000)).size() == 100'000);
  }

  TEST_CASE("keys by name, in any case") {
    CHECK(keys("<enter><CR><Return>") == "\r\r\r");
    CHECK(keys("<tab><s-tab><esc><space><bs><backspace>") == "\t\033[Z\033 \x7F\x7F");
    CHECK(keys("<ins><del><home><end><pgup><pagedown>") == "\033[2~\033[3~\033[H\033[F\033[5~\033[6~");
    CHECK(keys("<up><down><left><right>") == "\033[A\033[B\033[D\033[C");
    CHECK(keys("<f1><F4><f5><f12>") == "\033OP\033OS\033[15~\033[24~");
    CHECK(keys("<lt>div<gt>") == "<div>");
    CHECK(keys("<lt>enter>") == "<enter>");
  }

  TEST_CASE("modifiers") {
    CHECK(keys("<c-a><C-c><c-z><c-i><c-m><c-[>") == "\x01\x03\x1A\t\r\033");
    CHECK(keys("<c-\\><c-]><c-^><c-_>") == "\x1C\x1D\x1E\x1F");
    CHECK(keys("<c-space><c-@>") == std::string_view("\0\0", 2));
    CHECK(keys("<a-x><m-X><a-é><c-a-x><a-c-x><a-enter>") == "\033x\033X\033é\033\x18\033\x18\033\r");
    CHECK(keys("<c-left><s-up><c-s-right><a-pgup><c-f5>") ==
          "\033[1;5D\033[1;2A\033[1;6C\033[5;3~\033[15;5~");
    CHECK(keys("<c-enter><s-enter><s-space><c-bs><a-bs><c-?><a-gt><s-a>") == "\r\r \b\033\x7F\x7F\033>A");
  }

  TEST_CASE("what is no key is typed as it stands") {
    for (const char* text : {"<div>", "<b>", "<>", "<", "a<b>c", "<c->", "<c-1>", "<x-a>", "<c-div>",
                             "<enter", "<<", "<f13>", "if a < b and c > d:", "<c-世>", "cat <<EOF > f"})
      CHECK(keys(text) == text);
    CHECK(keys("<<enter>") == "<\r");
    CHECK(keys(repeated("<", 100'000)).size() == 100'000);
  }

  TEST_CASE("the modes of the program count") {
    CHECK(keys("<up><home><c-up><pgup>", "\033[?1h") == "\033OA\033OH\033[1;5A\033[5~");
    CHECK(keys("<up>", "\033[?1h\033[?1l") == "\033[A");
    CHECK(keys("a\n", "\033[?2004h") == "a\r");
  }
}
