#include "runtime/tar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/error.h"
#include "base/sys.h"

namespace hutch::runtime {

namespace {

constexpr std::string_view kAttribute = "SCHILY.xattr.", kSparse = "GNU.sparse.", kKind = "HUTCH.kind";
constexpr uint64_t kMostOctal7 = 07777777, kMostOctal11 = 077777777777;
constexpr uint64_t kMostFile = uint64_t{1} << 60;
constexpr size_t kMostPieces = 1u << 20;
constexpr size_t kReadBytes = 256u << 10;
constexpr size_t kNameField = 100;

struct UstarHeader {
  char name[kNameField], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[kNameField],
      magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], unused[12];
};
static_assert(sizeof(UstarHeader) == kTarBlock);

[[noreturn]] void bad(const std::string& what) {
  throw Error(Errc::invalid_argument, "bad archive: " + what);
}

uint64_t padded(uint64_t bytes) {
  return (bytes + kTarBlock - 1) / kTarBlock * kTarBlock;
}

template <size_t N>
void put_octal(char (&field)[N], uint64_t value) {
  const std::string digits = fmt::format("{:0{}o}", value, N - 1);
  std::memcpy(field, digits.data(), N - 1);
}

template <size_t N>
uint64_t octal(const char (&field)[N], const char* what) {
  std::string_view text(field, N);
  text = text.substr(0, std::min(text.find('\0'), N));
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  uint64_t value = 0;
  if (text.empty()) return value;
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), value, 8);
  if (err != std::errc() || end != text.data() + text.size()) bad(fmt::format("no number as {}", what));
  return value;
}

template <size_t N>
std::string field_text(const char (&field)[N]) {
  return std::string(field, ::strnlen(field, N));
}

uint64_t decimal(std::string_view text, std::string_view what) {
  uint64_t value = 0;
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || err != std::errc() || end != text.data() + text.size())
    bad(fmt::format("no number as {}", what));
  return value;
}

uint32_t sum_of(std::string_view block) {
  uint32_t sum = 0;
  for (size_t i = 0; i < block.size(); ++i)
    sum += i >= offsetof(UstarHeader, checksum) && i < offsetof(UstarHeader, type)
               ? static_cast<unsigned char>(' ')
               : static_cast<unsigned char>(block[i]);
  return sum;
}

std::string finished(UstarHeader& header) {
  std::memcpy(header.magic, "ustar", 6);
  std::memcpy(header.version, "00", 2);
  const std::string sum =
      fmt::format("{:06o}", sum_of({reinterpret_cast<const char*>(&header), sizeof header}));
  std::memcpy(header.checksum, sum.c_str(), 7);
  header.checksum[7] = ' ';
  return {reinterpret_cast<const char*>(&header), sizeof header};
}

/// "LENGTH KEY=VALUE\n", whose length counts its own digits.
void add_record(std::string& pax, std::string_view key, std::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t length = rest + 1;
  while (rest + std::to_string(length).size() != length) ++length;
  pax += fmt::format("{} {}=", length, key);
  pax.append(value);
  pax += '\n';
}

/// A time before 1970 with a fraction is its distance, with a sign.
std::string time_text(const timespec& time) {
  if (time.tv_sec >= 0 || time.tv_nsec == 0) return fmt::format("{}.{:09}", time.tv_sec, time.tv_nsec);
  return fmt::format("-{}.{:09}", -(time.tv_sec + 1), 1'000'000'000 - time.tv_nsec);
}

timespec parse_time(std::string_view text) {
  const bool before = text.starts_with('-');
  if (before) text.remove_prefix(1);
  const size_t dot = std::min(text.find('.'), text.size());
  const uint64_t seconds = decimal(text.substr(0, dot), "a time");
  std::string fraction(text.substr(std::min(dot + 1, text.size())));
  fraction.resize(9, '0');
  const auto nanoseconds = static_cast<long>(decimal(fraction, "a time"));
  if (seconds > kMostFile) bad("a time that no clock shows");
  const auto whole = static_cast<time_t>(seconds);
  if (!before) return {whole, nanoseconds};
  return nanoseconds == 0 ? timespec{-whole, 0} : timespec{-whole - 1, 1'000'000'000 - nanoseconds};
}

/// As GNU tar does: a key ends at the first '='.
std::string quoted_key(std::string_view name) {
  std::string out;
  for (const char c : name) out += c == '%' ? "%25" : c == '=' ? "%3D" : std::string(1, c);
  return out;
}

std::string unquoted_key(std::string_view name) {
  std::string out;
  for (size_t i = 0; i < name.size(); ++i) {
    const std::string_view three = name.substr(i, 3);
    if (three == "%25" || three == "%3D") {
      out += three == "%25" ? '%' : '=';
      i += 2;
    } else {
      out += name[i];
    }
  }
  return out;
}

bool is_text(std::string_view bytes) {
  return std::ranges::all_of(bytes, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

/// What the fixed fields cannot say, or not to every reader.
std::string pax_records(const TarEntry& entry, const std::string& name) {
  std::string pax;
  // Otherwise pax promises UTF-8.
  if (!is_text(name) || !is_text(entry.link)) add_record(pax, "hdrcharset", "BINARY");
  if (entry.sparse) {
    add_record(pax, "GNU.sparse.major", "1");
    add_record(pax, "GNU.sparse.minor", "0");
    add_record(pax, "GNU.sparse.name", name);
    add_record(pax, "GNU.sparse.realsize", std::to_string(entry.size));
  } else if (name.size() > kNameField || !is_text(name)) {
    add_record(pax, "path", name);
  }
  if (entry.link.size() > kNameField || !is_text(entry.link)) add_record(pax, "linkpath", entry.link);
  if (entry.stored > kMostOctal11) add_record(pax, "size", std::to_string(entry.stored));
  if (entry.uid > kMostOctal7) add_record(pax, "uid", std::to_string(entry.uid));
  if (entry.gid > kMostOctal7) add_record(pax, "gid", std::to_string(entry.gid));
  if (entry.mtime.tv_nsec != 0 || entry.mtime.tv_sec < 0 ||
      static_cast<uint64_t>(entry.mtime.tv_sec) > kMostOctal11)
    add_record(pax, "mtime", time_text(entry.mtime));
  if (entry.kind == TarEntry::Kind::socket) add_record(pax, kKind, "socket");
  for (const auto& [key, value] : entry.attributes)
    add_record(pax, std::string(kAttribute) + quoted_key(key), value);
  return pax;
}

void put_text(char (&field)[kNameField], std::string_view text) {
  std::memcpy(field, text.data(), std::min(text.size(), kNameField));
}

std::map<std::string, std::string> parse_records(std::string_view text) {
  std::map<std::string, std::string> out;
  while (!text.empty()) {
    const size_t space = text.find(' ');
    if (space == std::string_view::npos) bad("a pax header without lengths");
    const uint64_t length = decimal(text.substr(0, space), "the length of a pax record");
    if (length <= space + 2 || length > text.size() || text[length - 1] != '\n')
      bad("a pax record of another length than it says");
    const std::string_view record = text.substr(space + 1, length - space - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) bad("a pax record without a value");
    if (!out.emplace(record.substr(0, equals), record.substr(equals + 1)).second) bad("a pax record twice");
    text.remove_prefix(length);
  }
  return out;
}

TarEntry::Kind kind_of(char type) {
  if (type == '\0') return TarEntry::Kind::file;
  if (type >= '0' && type <= '6') return static_cast<TarEntry::Kind>(type);
  bad(fmt::format("an entry of type {:#x}, which hutch does not write", static_cast<unsigned char>(type)));
}

/// `pax`: the value replaces what the fixed field says.
class Fields {
 public:
  Fields(const UstarHeader& header, const std::map<std::string, std::string>& pax)
      : header_(header), pax_(pax) {}

  TarEntry entry() const {
    TarEntry out;
    out.kind = kind_of(header_.type);
    out.mode = static_cast<uint32_t>(octal(header_.mode, "a mode")) & 07777;
    out.uid = number("uid", octal(header_.uid, "an owner"));
    out.gid = number("gid", octal(header_.gid, "a group"));
    out.major = octal(header_.major, "a device");
    out.minor = octal(header_.minor, "a device");
    if (std::max(out.major, out.minor) > kMostOctal7) bad("a device with a number that none has");
    out.stored = number("size", octal(header_.size, "a size"));
    if (out.stored > kMostFile) bad("a size that no file has");
    if (out.kind != TarEntry::Kind::file && out.stored != 0) bad("content of what is no file");
    out.mtime = {static_cast<time_t>(octal(header_.mtime, "a time")), 0};
    if (const auto found = pax_.find("mtime"); found != pax_.end()) out.mtime = parse_time(found->second);
    set_names(out);
    set_size(out);
    set_kind(out);
    for (const auto& [key, value] : pax_)
      if (key.starts_with(kAttribute))
        out.attributes.emplace(unquoted_key(std::string_view(key).substr(kAttribute.size())), value);
    return out;
  }

 private:
  uint64_t number(const char* key, uint64_t fixed) const {
    const auto found = pax_.find(key);
    return found == pax_.end() ? fixed : decimal(found->second, key);
  }
  std::string text(const char* key, std::string fixed) const {
    const auto found = pax_.find(key);
    return found == pax_.end() ? std::move(fixed) : found->second;
  }
  void set_names(TarEntry& out) const {
    std::string prefix = field_text(header_.prefix);
    if (!prefix.empty()) prefix += '/';
    out.name = text("path", prefix + field_text(header_.name));
    out.name = text("GNU.sparse.name", std::move(out.name));
    out.link = text("linkpath", field_text(header_.link));
    if (out.kind == TarEntry::Kind::folder && out.name.ends_with('/')) out.name.pop_back();
    if ((out.name + out.link).find('\0') != std::string::npos) bad("a name with a zero in it");
  }
  void set_size(TarEntry& out) const {
    out.size = out.stored;
    out.sparse = std::ranges::any_of(pax_, [](const auto& one) { return one.first.starts_with(kSparse); });
    if (!out.sparse) return;
    if (out.kind != TarEntry::Kind::file || text("GNU.sparse.major", "") != "1" ||
        text("GNU.sparse.minor", "") != "0")
      bad("a sparse file of a format that hutch does not write");
    out.size = number("GNU.sparse.realsize", kMostFile + 1);
    if (out.size > kMostFile) bad("a size that no file has");
  }
  void set_kind(TarEntry& out) const {
    if (text(kKind.data(), "") != "socket") return;
    if (out.kind != TarEntry::Kind::fifo) bad("a socket that is something else too");
    out.kind = TarEntry::Kind::socket;
  }

  const UstarHeader& header_;
  const std::map<std::string, std::string>& pax_;
};

}  // namespace

std::string TarMap::encoded() const {
  std::string out = fmt::format("{}\n", pieces.size());
  for (const Piece& piece : pieces) out += fmt::format("{}\n{}\n", piece.at, piece.length);
  return out.append(tar_padding(out.size()));
}

std::string tar_header(const TarEntry& entry) {
  std::string name = entry.name;
  if (entry.kind == TarEntry::Kind::folder) name += '/';
  const std::string pax = pax_records(entry, name);
  if (pax.size() > kMostTarHeader)
    throw Error(Errc::invalid_argument, "a name or its attributes are too long for an archive");
  std::string out;
  if (!pax.empty()) {
    UstarHeader header{};
    put_text(header.name, "./PaxHeaders/entry");
    put_octal(header.mode, 0644);
    put_octal(header.size, pax.size());
    header.type = 'x';
    out = finished(header) + pax;
    out.append(tar_padding(pax.size()));
  }
  UstarHeader header{};
  put_text(header.name, entry.sparse ? "GNUSparseFile.0/file" : name);
  put_text(header.link, entry.link);
  put_octal(header.mode, entry.mode);
  put_octal(header.uid, std::min(entry.uid, kMostOctal7));
  put_octal(header.gid, std::min(entry.gid, kMostOctal7));
  put_octal(header.size, std::min(entry.stored, kMostOctal11));
  put_octal(header.mtime,
            std::min(static_cast<uint64_t>(std::max<time_t>(entry.mtime.tv_sec, 0)), kMostOctal11));
  put_octal(header.major, entry.major);
  put_octal(header.minor, entry.minor);
  header.type = static_cast<char>(entry.kind == TarEntry::Kind::socket ? TarEntry::Kind::fifo : entry.kind);
  return out + finished(header);
}

std::string_view tar_padding(uint64_t stored) {
  static constexpr char kZeros[kTarBlock] = {};
  return {kZeros, static_cast<size_t>(padded(stored) - stored)};
}

std::string tar_end() {
  return std::string(2 * kTarBlock, '\0');
}

bool TarReader::fill() {
  if (at_ < buffer_.size()) return true;
  buffer_.resize(kReadBytes);
  const ssize_t n = sys::retry_eintr([&] { return ::read(fd_, buffer_.data(), buffer_.size()); });
  if (n < 0) throw sys_error(errno, "read", "the archive");
  buffer_.resize(static_cast<size_t>(n));
  at_ = 0;
  bytes_ += static_cast<uint64_t>(n);
  return n > 0;
}

std::string TarReader::block() {
  std::string out;
  while (out.size() < kTarBlock) {
    if (!fill()) bad("it ends in the middle");
    const size_t n = std::min(kTarBlock - out.size(), buffer_.size() - at_);
    out.append(buffer_, at_, n);
    at_ += n;
  }
  return out;
}

std::string TarReader::read_pax(const std::string& block) {
  UstarHeader header;
  std::memcpy(&header, block.data(), sizeof header);
  const uint64_t size = octal(header.size, "a size");
  if (size > kMostTarHeader)
    bad(fmt::format("{} bytes of name and attributes of one entry, {} are allowed", size, kMostTarHeader));
  std::string text;
  while (text.size() < size) text += this->block();
  header_ += text;
  text.resize(static_cast<size_t>(size));
  return text;
}

/// False: it was the one of a pax header, whose records are in `pax` now.
bool TarReader::read_header(std::string& block, std::map<std::string, std::string>& pax) {
  UstarHeader header;
  std::memcpy(&header, block.data(), sizeof header);
  if (sum_of(block) != octal(header.checksum, "a checksum") || std::string_view(header.magic, 5) != "ustar")
    bad("no header where one must be");
  header_ += block;
  if (header.type == 'x') {
    if (!pax.empty()) bad("two pax headers for one entry");
    pax = parse_records(read_pax(block));
    return false;
  }
  entry_ = Fields(header, pax).entry();
  return true;
}

bool TarReader::next() {
  while (!content_and_padding().empty()) continue;
  header_.clear();
  std::map<std::string, std::string> pax;
  for (;;) {
    std::string head = block();
    if (head == std::string(kTarBlock, '\0')) {
      if (!pax.empty() || block() != head) bad("it ends in the middle");
      return false;
    }
    if (!read_header(head, pax)) continue;
    stored_left_ = entry_.stored;
    padded_left_ = padded(entry_.stored);
    return true;
  }
}

std::string_view TarReader::content_and_padding(uint64_t most) {
  if (padded_left_ == 0) return {};
  if (!fill()) bad("it ends in the middle");
  const size_t n = static_cast<size_t>(std::min({uint64_t{buffer_.size() - at_}, padded_left_, most}));
  const std::string_view piece(buffer_.data() + at_, n);
  at_ += n;
  padded_left_ -= n;
  stored_left_ -= std::min<uint64_t>(stored_left_, n);
  return piece;
}

std::string_view TarReader::content(uint64_t most) {
  return stored_left_ == 0 ? std::string_view() : content_and_padding(std::min(most, stored_left_));
}

bool TarReader::next_of_part() {
  while (!content_and_padding().empty()) continue;
  return fill() && next();
}

TarMap TarReader::map() {
  std::string text;  // what is not parsed yet
  const auto number = [&] {
    for (;;) {
      if (const size_t end = text.find('\n'); end != std::string::npos) {
        const uint64_t value = decimal(std::string_view(text).substr(0, end), "a place in a sparse file");
        text.erase(0, end + 1);
        return value;
      }
      if (stored_left_ < kTarBlock) bad("a sparse file without a map");
      text += block();
      stored_left_ -= kTarBlock;
      padded_left_ -= kTarBlock;
    }
  };
  TarMap out;
  const uint64_t count = number();
  if (count > kMostPieces) bad("too many pieces of a sparse file");
  uint64_t end = 0, data = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = number(), length = number();
    if (at < end || at > entry_.size || length > entry_.size - at)
      bad("pieces of a sparse file that cannot be");
    out.pieces.push_back({at, length});
    end = at + length;
    data += length;
  }
  if (data != stored_left_) bad("a sparse file with more or less data than its map says");
  return out;
}

void TarReader::expect_nothing_more() {
  while (fill()) {
    if (std::string_view(buffer_).substr(at_).find_first_not_of('\0') != std::string_view::npos)
      bad("something follows its end");
    at_ = buffer_.size();
  }
}

}  // namespace hutch::runtime
