#include "tools/encoding.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "schema/text.h"

namespace hutch::tools {

namespace {

// libcrypto counts in int: big texts go through in pieces, each whole groups of 3 bytes or 4 digits.
constexpr size_t kGroups = size_t{1} << 20;

bool is_digit(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
}

Error not_base64(std::string_view name, const std::string& why) {
  return Error(Errc::invalid_argument, fmt::format("'{}' is not base64: {}", name, why))
      .hint("`encoding: text` (the default) takes the content as it is");
}

bool continues_character(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

}  // namespace

std::string base64_encode(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  std::string block;
  for (; !bytes.empty(); bytes.remove_prefix(std::min(bytes.size(), 3 * kGroups))) {
    const std::string_view piece = bytes.substr(0, 3 * kGroups);
    block.resize((piece.size() + 2) / 3 * 4 + 1);  // and a NUL
    const int size =
        EVP_EncodeBlock(reinterpret_cast<unsigned char*>(block.data()),
                        reinterpret_cast<const unsigned char*>(piece.data()), static_cast<int>(piece.size()));
    out.append(block, 0, static_cast<size_t>(size));
  }
  return out;
}

std::string base64_decode(std::string_view text, std::string_view name) {
  // EVP_DecodeBlock takes blanks around the text and padding within it, and counts padding as zeros.
  std::string digits;
  digits.reserve(text.size());
  std::copy_if(text.begin(), text.end(), std::back_inserter(digits),
               [](char c) { return c != '\n' && c != '\r'; });
  const size_t padding = digits.ends_with("==") ? 2 : digits.ends_with('=') ? 1 : 0;
  const auto wrong =
      std::find_if_not(digits.begin(), digits.end() - static_cast<ptrdiff_t>(padding), is_digit);
  if (wrong != digits.end() - static_cast<ptrdiff_t>(padding))
    throw not_base64(name,
                     fmt::format("character {} is '{}'", wrong - digits.begin() + 1, one_line({&*wrong, 1})));
  if (digits.size() % 4 != 0)
    throw not_base64(
        name, fmt::format("{} digits, not a multiple of 4: cut short, or '=' is missing", digits.size()));

  std::string out(digits.size() / 4 * 3, '\0');
  for (size_t at = 0; at < digits.size(); at += 4 * kGroups) {
    const size_t piece = std::min(digits.size() - at, 4 * kGroups);
    const int size =
        EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data() + at / 4 * 3),
                        reinterpret_cast<const unsigned char*>(digits.data() + at), static_cast<int>(piece));
    if (size < 0) throw not_base64(name, "libcrypto refuses it");
  }
  out.resize(out.size() - padding);
  return out;
}

void Utf8Check::step(unsigned char byte) {
  if (missing_ > 0) {
    valid_ = byte >= lowest_ && byte <= highest_;
    --missing_;
    lowest_ = 0x80;
    highest_ = 0xBF;
    return;
  }
  if (byte < 0x80) {
    has_nul_ = has_nul_ || byte == 0;
    return;
  }
  // Table 3-7 of the Unicode standard: some first bytes narrow the range of the second.
  valid_ = byte >= 0xC2 && byte <= 0xF4;
  missing_ = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
  lowest_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
  highest_ = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
}

void Utf8Check::append(std::string_view bytes) {
  if (!has_nul_ && std::memchr(bytes.data(), 0, bytes.size()) != nullptr) has_nul_ = true;
  size_t at = 0;
  while (valid_ && at < bytes.size()) {
    uint64_t word = 0;
    if (missing_ == 0 && bytes.size() - at >= sizeof word) {
      std::memcpy(&word, bytes.data() + at, sizeof word);
      if ((word & 0x8080808080808080u) == 0) {
        at += sizeof word;
        continue;
      }
    }
    step(static_cast<unsigned char>(bytes[at++]));
  }
}

bool is_text(std::string_view bytes) {
  Utf8Check check;
  check.append(bytes);
  return check.valid() && !check.has_nul();
}

std::string_view image_type(std::string_view bytes) {
  using namespace std::string_view_literals;
  if (bytes.starts_with("\x89PNG\r\n\x1a\n"sv)) return "image/png";
  if (bytes.starts_with("\xFF\xD8\xFF"sv)) return "image/jpeg";
  if (bytes.starts_with("GIF87a"sv) || bytes.starts_with("GIF89a"sv)) return "image/gif";
  if (bytes.starts_with("RIFF"sv) && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP"sv)
    return "image/webp";
  return {};
}

std::string_view prefix_of(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return text;
  size_t end = bytes;
  // At most three steps back: beyond that it is no UTF-8, and any cut is as good.
  while (end > 0 && bytes - end < 3 && continues_character(text[end])) --end;
  return text.substr(0, continues_character(text[end]) ? bytes : end);
}

std::string_view suffix_of(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return text;
  text.remove_prefix(text.size() - bytes);
  size_t start = 0;
  while (start < 3 && start < text.size() && continues_character(text[start])) ++start;
  return text.substr(start);
}

std::string one_line(std::string_view bytes) {
  std::string out;
  for (const char c : schema::valid_utf8(bytes)) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\r')
      out += "\\r";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out;
}

}  // namespace hutch::tools
