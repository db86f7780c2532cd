#include "tools/sandbox_read_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <ranges>
#include <string>
#include <vector>

#include "schema/text.h"

namespace hutch::tools {

namespace {

constexpr size_t kImageMax = 5 << 20;  // what model APIs take
constexpr size_t kListedNames = 2000;
constexpr int64_t kToTheEnd = std::numeric_limits<int64_t>::max();
constexpr size_t kShortHash = 12;

/// Everything that one pass over a file can tell. Called on the I/O thread, so it only counts and copies.
class FileScan {
 public:
  FileScan(LineWindow window, bool wants_image) : window_(std::move(window)), wants_image_(wants_image) {}

  void append(std::string_view bytes) {
    hash_.update(bytes);
    utf8_.append(bytes);
    window_.append(bytes);
    if (!wants_image_) return;
    image_ += bytes;
    const bool no_image = image_.size() >= 12 && image_type(image_).empty();
    if (!no_image && image_.size() <= kImageMax) return;
    wants_image_ = false;
    too_large_image_ = !no_image;
    image_ = {};
  }

  const LineWindow& window() const { return window_; }
  const Utf8Check& utf8() const { return utf8_; }
  const std::string& image() const { return image_; }
  bool too_large_image() const { return too_large_image_; }
  std::string sha256() { return hash_.hex(); }

 private:
  LineWindow window_;
  bool wants_image_, too_large_image_ = false;
  Sha256 hash_;
  Utf8Check utf8_;
  std::string image_;
};

struct LineRange {
  int64_t first = 1, last = kToTheEnd;
};

LineRange range_of(const SandboxReadFileArgs& args) {
  if (args.line_range.empty()) return {};
  const auto wrong = [](std::string what) {
    return Error(Errc::invalid_argument, "'line_range' " + std::move(what))
        .hint("`line_range` is [first, last], counted from 1; last may be -1 for the end, such as [200, -1]");
  };
  if (args.line_range.size() != 2) throw wrong("must have 2 elements, has 1");
  if (args.encoding == "base64")
    throw wrong("does not go with encoding base64, which returns the whole file");
  const int64_t first = args.line_range[0], last = args.line_range[1];
  if (first < 1) throw wrong(fmt::format("begins at {}, but lines count from 1", first));
  if (last == -1) return {first, kToTheEnd};
  if (last < first) throw wrong(fmt::format("ends at {}, before its first line {}", last, first));
  return {first, last};
}

/// Names in the nearest folder above `path` that exists: what was probably meant.
std::string hint_for_missing(sandbox::Sandbox& sandbox, const std::string& path,
                             const std::stop_token& stop) {
  const std::string absolute = sandbox.absolute(path);
  const size_t slash = absolute.rfind('/');
  const std::string folder = slash == 0 ? "/" : absolute.substr(0, slash);
  std::vector<std::string> names;
  try {
    const auto note = [&](const sandbox::FileEntry& entry) {
      names.push_back(entry.path);
      return names.size() < kListedNames;
    };
    sandbox.list_files(folder, 1, note, stop);
  } catch (const Error&) {
    return fmt::format("there is no folder {} either; sandbox_list_files shows what there is",
                       one_line(folder));
  }
  const std::string name = absolute.substr(slash + 1);
  if (std::find(names.begin(), names.end(), name) != names.end())
    return "it is a symbolic link that leads nowhere; sandbox_list_files shows its target";
  const std::string_view near =
      schema::nearest(name, std::vector<std::string_view>(names.begin(), names.end()));
  if (!near.empty())
    return fmt::format("did you mean {}? sandbox_list_files shows all of {}",
                       one_line(absolute.substr(0, slash + 1) + std::string(near)), one_line(folder));
  if (names.empty())
    return fmt::format("the folder {} is empty; sandbox_exec with `find` looks elsewhere", one_line(folder));
  std::vector<std::string> some;
  for (size_t i = 0; i < std::min<size_t>(names.size(), 10); ++i) some.push_back(one_line(names[i]));
  return fmt::format("{} has {}{}; sandbox_list_files shows more", one_line(folder), fmt::join(some, ", "),
                     names.size() > some.size() ? " ..." : "");
}

std::string_view last_line_of(std::string_view text) {
  const size_t before = text.size() < 2 ? text.npos : text.rfind('\n', text.size() - 2);
  return before == text.npos ? text : text.substr(before + 1);
}

/// The beginning or end of a line that is cut inside. Wrong bytes become longer ones when they are shown.
template <class Cut>
std::string_view piece_of(Cut cut, std::string_view line, size_t limit) {
  constexpr size_t kNumber = 24;  // and what stands around the piece
  std::string_view piece = cut(line, limit - std::min(limit, kNumber));
  while (schema::valid_utf8(piece).size() > limit) piece = cut(line, piece.size() / 2);
  return piece;
}

std::string size_hint(const std::string& path) {
  return fmt::format(
      "parts of it with sandbox_exec, such as `sed -n '1,100p' {0}`, `tail -c 4096 {0}` or `xxd -l 256 {0}`",
      shell_word(path));
}

void take_text(const FileScan& scan, const LineRange& range, FileContent& content) {
  const LineWindow& window = scan.window();
  const int64_t total = window.total_lines();
  if (range.first > std::max<int64_t>(total, 1))
    throw Error(Errc::invalid_argument, fmt::format("'line_range' begins at {}, but {} has {} lines",
                                                    range.first, content.path, total))
        .hint(fmt::format("`line_range` [{}, -1] is its end", std::max<int64_t>(1, total - 49)));
  LineWindow::Shown shown = window.show();
  content.encoding = "text";
  content.content = std::move(shown.text);
  content.truncated = shown.truncated;
  if (total > 0) {
    content.first_line = range.first;
    content.last_line = window.last_line();
  }
  if (range.last != kToTheEnd && range.last > total)
    content.notes.push_back(fmt::format("The file ends at line {}.", total));
  if (!scan.utf8().valid())
    content.notes.push_back("It is not valid UTF-8: wrong bytes are shown as U+FFFD.");
  if (scan.utf8().has_nul()) content.notes.push_back("It has NUL bytes.");
  if (window.has_crlf_ends()) content.notes.push_back("Lines end in CRLF; sandbox_edit_file keeps them.");
  if (window.ends_in_line() && window.last_line() == total)
    content.notes.push_back("No newline at the end of the file.");
}

/// False when it does not fit.
bool take_base64(const LineWindow& window, size_t limit, FileContent& content) {
  const auto bytes = window.bytes();
  if (!bytes || (bytes->size() + 2) / 3 * 4 > limit) return false;
  content.encoding = "base64";
  content.content = base64_encode(*bytes);
  return true;
}

void take_image(const FileScan& scan, FileContent& content) {
  content.encoding = "image";
  content.mime_type = image_type(scan.image());
  content.image = base64_encode(scan.image());
}

void take_binary(const FileScan& scan, size_t limit, FileContent& content) {
  if (take_base64(scan.window(), limit, content)) {
    content.notes.push_back("It is not text: base64 of its bytes. `encoding: text` shows it as text.");
    return;
  }
  content.encoding = "none";
  content.truncated = true;
  if (scan.too_large_image())
    content.notes.push_back(
        fmt::format("An image of more than {}, too large to be shown: make a smaller one with sandbox_exec.",
                    size_in_words(kImageMax)));
  else
    content.notes.push_back(fmt::format("It is not text, and too large for base64 (at most {} here).",
                                        size_in_words(limit / 4 * 3)));
  content.notes.push_back(
      fmt::format("sandbox_exec reads parts of it, such as `file {0}` or `xxd -l 256 {0}`; `encoding: text` "
                  "shows what text it has.",
                  shell_word(content.path)));
}

FileContent run(const SandboxReadFileArgs& args, Services& services, mcp::CallContext& context) {
  const LineRange range = range_of(args);
  const auto& config = services.manager.config();
  const auto limit = static_cast<size_t>(config.sandbox.read_limit);
  const Target target = find_target(services, args.sandbox_id, context);
  FileScan scan(LineWindow(range.first, range.last, limit), args.encoding == "auto");
  read_content(
      *target.sandbox, args.path, config.limits.file_max.value,
      [&](std::string_view bytes) { scan.append(bytes); }, context.stop());

  FileContent content{.sandbox_id = target.sandbox->id(), .path = target.sandbox->absolute(args.path)};
  content.size = static_cast<int64_t>(scan.window().total_bytes());
  content.total_lines = scan.window().total_lines();
  content.sha256 = scan.sha256();
  // Who asks for lines of a file takes it for text, whatever its encoding.
  const bool as_text = !scan.utf8().has_nul() && (scan.utf8().valid() || !args.line_range.empty());
  if (args.encoding == "base64") {
    if (!take_base64(scan.window(), limit, content))
      throw Error(Errc::limit_exceeded,
                  fmt::format("{} has {}; as base64 at most {} fit into a result", content.path,
                              size_in_words(scan.window().total_bytes()), size_in_words(limit / 4 * 3)))
          .hint(size_hint(content.path));
  } else if (args.encoding == "auto" && !image_type(scan.image()).empty()) {
    take_image(scan, content);
  } else if (args.encoding == "text" || as_text) {
    take_text(scan, range, content);
  } else {
    take_binary(scan, limit, content);
  }
  if (!target.note.empty()) content.notes.push_back(target.note);
  return content;
}

std::string what_it_is(const FileContent& content) {
  if (content.encoding == "image") return *content.mime_type;
  if (content.encoding != "text") return content.encoding == "base64" ? "base64" : "binary";
  if (content.total_lines == 0) return "empty";
  const int64_t first = content.first_line.value_or(1), last = content.last_line.value_or(1);
  const char* cut = content.truncated ? " without the middle" : "";
  return first == last ? fmt::format("line {} of {}{}", first, content.total_lines, cut)
                       : fmt::format("lines {}-{} of {}{}", first, last, content.total_lines, cut);
}

mcp::Reply render(const FileContent& content) {
  std::string text = fmt::format("{} · {} · {} · sha256 {} · {}\n", one_line(content.path),
                                 what_it_is(content), size_in_words(static_cast<uint64_t>(content.size)),
                                 short_sha256(content.sha256), content.sandbox_id);
  text += content.content;
  for (const auto& note : content.notes) add_line(text, note);
  while (text.ends_with('\n')) text.pop_back();
  mcp::Reply reply{.text = std::move(text)};
  if (!content.image.empty()) reply.images.push_back({*content.mime_type, content.image});
  return reply;
}

}  // namespace

void LineWindow::append(std::string_view bytes) {
  const auto current = [&] { return line_ends_ + 1; };
  size_t from = current() >= first_ && current() <= last_ ? 0 : std::string_view::npos;
  for (size_t end = bytes.find('\n'); end != bytes.npos; end = bytes.find('\n', end + 1)) {
    if ((end > 0 ? bytes[end - 1] : before_) == '\r') ++crlf_ends_;
    if (current() == last_) {
      keep(bytes.substr(from, end + 1 - from));
      from = bytes.npos;
    }
    ++line_ends_;
    if (current() == first_) from = end + 1;
  }
  if (from < bytes.size()) keep(bytes.substr(from));
  total_bytes_ += bytes.size();
  if (!bytes.empty()) before_ = bytes.back();
}

void LineWindow::keep(std::string_view bytes) {
  kept_bytes_ += bytes.size();
  const size_t head_limit = limit_ / 3, tail_limit = limit_ - head_limit;
  const size_t taken = std::min(bytes.size(), head_limit - head_.size());
  head_.append(bytes.substr(0, taken));
  bytes.remove_prefix(taken);
  if (bytes.size() > tail_limit) bytes.remove_prefix(bytes.size() - tail_limit);
  tail_.append(bytes);
  if (tail_.size() > 2 * tail_limit) tail_.erase(0, tail_.size() - tail_limit);
}

std::string_view LineWindow::tail() const {
  return suffix_of(tail_, limit_ - limit_ / 3);
}

std::optional<std::string> LineWindow::bytes() const {
  if (kept_bytes_ > limit_) return std::nullopt;
  return head_ + tail_;
}

std::string LineWindow::numbered(int64_t number, std::string_view line) const {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (has_crlf_ends() && line.ends_with('\r')) line.remove_suffix(1);
  return fmt::format("{}\t{}\n", number, schema::valid_utf8(line));
}

LineWindow::Shown LineWindow::show() const {
  const auto all = bytes();
  if (!all) return show_cut(head_, tail());
  Shown shown;
  int64_t number = first_;
  for (std::string_view rest = *all; !rest.empty(); ++number) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end == rest.npos ? end : end + 1);
    shown.text += numbered(number, line);
    rest.remove_prefix(line.size());
  }
  return shown.text.size() <= limit_ ? shown : show_cut(*all, *all);
}

LineWindow::Part LineWindow::front(std::string_view text, size_t limit) const {
  Part part;
  for (size_t end = text.find('\n'); end != text.npos; end = text.find('\n')) {
    const std::string line = numbered(first_ + part.lines, text.substr(0, end + 1));
    if (part.text.size() + line.size() > limit) break;
    part.text += line;
    part.bytes += end + 1;
    ++part.lines;
    text.remove_prefix(end + 1);
  }
  if (part.lines > 0) return part;
  const std::string_view piece = piece_of(prefix_of, text.substr(0, text.find('\n')), limit);
  return {.text = fmt::format("{}\t{}…\n", first_, schema::valid_utf8(piece)), .bytes = piece.size()};
}

LineWindow::Part LineWindow::back(std::string_view text, size_t limit) const {
  Part part;
  std::vector<std::string> lines;  // the last one first
  size_t shown_bytes = 0;
  std::string_view line = last_line_of(text);
  // The first line is not complete, or is not known to be.
  for (; line.size() < text.size(); line = last_line_of(text)) {
    lines.push_back(numbered(last_line() - part.lines, line));
    if (shown_bytes + lines.back().size() > limit) {
      lines.pop_back();
      break;
    }
    shown_bytes += lines.back().size();
    part.bytes += line.size();
    ++part.lines;
    text.remove_suffix(line.size());
  }
  for (const auto& shown : lines | std::views::reverse) part.text += shown;
  if (part.lines > 0) return part;
  if (line.ends_with('\n')) line.remove_suffix(1);
  const std::string_view piece = piece_of(suffix_of, line, limit);
  return {.text = fmt::format("{}\t…{}\n", last_line(), schema::valid_utf8(piece)), .bytes = piece.size()};
}

LineWindow::Shown LineWindow::show_cut(std::string_view head, std::string_view tail) const {
  const Part front = this->front(head, limit_ / 3), back = this->back(tail, limit_ - limit_ / 3);
  const int64_t first = first_ + front.lines, last = last_line() - back.lines;
  const std::string size = size_in_words(kept_bytes_ - std::min(kept_bytes_, front.bytes + back.bytes));
  const std::string cut =
      first == last ? fmt::format(
                          "[... {} of line {} cut here: `sed -n {}p FILE | cut -c A-B` in sandbox_exec shows "
                          "parts of a line ...]\n",
                          size, first, first)
                    : fmt::format("[... lines {0}-{1} cut here, {2}: line_range [{0}, {1}] reads them ...]\n",
                                  first, last, size);
  return {.text = front.text + cut + back.text, .truncated = true};
}

sandbox::FileInfo read_content(sandbox::Sandbox& sandbox, const std::string& path, uint64_t max_bytes,
                               const std::function<void(std::string_view)>& sink,
                               const std::stop_token& stop) {
  uint64_t bytes = 0;
  const auto counted = [&](std::string_view piece) {
    bytes += piece.size();
    if (bytes <= max_bytes) sink(piece);
    return bytes <= max_bytes;
  };
  sandbox::FileInfo info;
  try {
    info = sandbox.read_file(path, max_bytes + 1, counted, stop);
  } catch (Error& error) {
    if (error.os_error() == ENOENT) error.hint(hint_for_missing(sandbox, path, stop));
    if (error.os_error() == EISDIR) error.hint("sandbox_list_files shows what is in a folder");
    if (error.os_error() == EINVAL)
      error.hint("only files can be read; sandbox_exec reads pipes and devices");
    throw;
  }
  if (bytes > max_bytes)
    throw Error(Errc::limit_exceeded,
                fmt::format("{} has {}, more than the {} that this tool takes", sandbox.absolute(path),
                            size_in_words(std::max(info.state.size, bytes)), size_in_words(max_bytes)))
        .hint(size_hint(sandbox.absolute(path)));
  return info;
}

void check_sha256(const std::string& wanted, const std::string& present, const std::string& path) {
  if (wanted.empty()) return;
  std::string lower = wanted;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
  if (lower.size() < kShortHash || lower.size() > 64 ||
      lower.find_first_not_of("0123456789abcdef") != lower.npos)
    throw Error(Errc::invalid_argument,
                "'if_sha256' must be the 64 hex digits of a SHA-256, or its first 12 or more")
        .hint("sandbox_read_file says the sha256 of a file");
  if (present.starts_with(lower)) return;
  throw Error(Errc::conflict, fmt::format("{} has changed: its sha256 is {}, not {}", path, present, wanted))
      .hint("read it again with sandbox_read_file and base the change on what is there now");
}

std::string short_sha256(const std::string& sha256) {
  return sha256.substr(0, kShortHash);
}

std::string shell_word(const std::string& path) {
  const bool plain = std::all_of(path.begin(), path.end(), [](unsigned char c) {
    return c >= 0x80 || std::isalnum(c) != 0 ||
           std::string_view("/._-+@%,:=").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) return path;
  std::string out = "'";
  for (const char c : one_line(path)) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

void add_sandbox_read_file(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxReadFileArgs, FileContent>(
      {.name = "sandbox_read_file",
       .title = "Read a file",
       .description =
           "Reads a file in a sandbox. Text comes with line numbers and a tab, which are not part of the "
           "file; images as images; small binary files as base64. The first line has the size and the sha256 "
           "for if_sha256. Long files are cut in the middle, with the line_range to read on.",
       .toolset = "files",
       .lean = true,
       .read_only = true,
       .idempotent = true},
      [&services](const SandboxReadFileArgs& args, mcp::CallContext& context) {
        return run(args, services, context);
      },
      render);
}

}  // namespace hutch::tools
