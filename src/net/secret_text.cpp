#include "net/secret_text.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <string.h>

#include <algorithm>

namespace hutch::net {

namespace {

bool is_unreserved(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

void wipe(std::string& text) {
  ::explicit_bzero(text.data(), text.size());
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view what, std::string_view with) {
  std::string out;
  for (size_t at; (at = text.find(what)) != text.npos; text.remove_prefix(at + what.size())) {
    out += text.substr(0, at);
    out += with;
  }
  out += text;
  return out;
}

std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (is_unreserved(static_cast<unsigned char>(c)))
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

std::string json_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\')
      (out += '\\') += c;
    else if (static_cast<unsigned char>(c) < ' ')
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out;
}

std::string base64_encode(std::string_view bytes) {
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');  // EVP_EncodeBlock ends it with a NUL
  const int size =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(size));
  return out;
}

std::string base64_decode(std::string_view text) {
  // EVP_DecodeBlock skips spaces around and takes `=` for a letter, which have no place in a header's token.
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  const size_t letters = text.size() - padding;
  if (text.empty() || text.size() % 4 != 0 || text.find_first_of("= \t\r\n") < letters) return {};
  std::string out(text.size() / 4 * 3, '\0');
  const int size =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (size < 0) return {};
  out.resize(static_cast<size_t>(size) - padding);
  return out;
}

std::string change_in_query(std::string_view target, std::string_view parameter,
                            const std::function<std::string(std::string_view)>& change) {
  const size_t question = target.find('?');
  if (question == target.npos) return std::string(target);
  std::string out(target.substr(0, question + 1));
  for (std::string_view rest = target.substr(question + 1);;) {
    const size_t end = rest.find('&'), equals = rest.find('=');
    const std::string_view part = rest.substr(0, end);
    if (equals < part.size() && part.substr(0, equals) == parameter)
      (out += part.substr(0, equals + 1)) += change(part.substr(equals + 1));
    else
      out += part;
    if (end == rest.npos) return out;
    out += '&';
    rest.remove_prefix(end + 1);
  }
}

Mask::Mask(std::vector<std::string> hidden) : hidden_(std::move(hidden)) {
  std::erase(hidden_, std::string());
}

Mask::~Mask() {
  std::ranges::for_each(hidden_, wipe);
  wipe(held_);
}

void Mask::cover(std::string_view text, std::string& shown) const {
  for (const std::string& one : hidden_) {
    for (size_t at = 0; at < text.size();) {
      const void* found = ::memmem(text.data() + at, text.size() - at, one.data(), one.size());
      if (found == nullptr) break;
      at = static_cast<size_t>(static_cast<const char*>(found) - text.data());
      std::fill_n(shown.begin() + static_cast<std::ptrdiff_t>(at), one.size(), '*');
      ++at;
    }
  }
}

/// How much of the end may be the beginning of a hidden text.
size_t Mask::undecided(std::string_view text) const {
  size_t most = 0;
  for (const std::string& one : hidden_) {
    std::string_view end = text.substr(text.size() - std::min(text.size(), one.size() - 1));
    for (size_t at; end.size() > most && (at = end.find(one[0])) != end.npos; end.remove_prefix(1)) {
      end.remove_prefix(at);
      if (!one.starts_with(end)) continue;
      most = std::max(most, end.size());
      break;
    }
  }
  return most;
}

std::string Mask::pass(std::string_view bytes) {
  if (hidden_.empty()) return std::string(bytes);
  std::string text = std::move(held_), shown = std::move(shown_);
  text += bytes;
  shown += bytes;
  cover(text, shown);
  const size_t ready = text.size() - undecided(text);
  held_ = text.substr(ready);
  shown_ = shown.substr(ready);
  shown.resize(ready);
  wipe(text);
  return shown;
}

std::string Mask::finish() {
  wipe(held_);
  held_.clear();
  return std::exchange(shown_, {});
}

std::string Mask::apply(std::string_view text) const {
  std::string shown(text);
  cover(text, shown);
  return shown;
}

std::vector<std::string> forms_of(std::string_view value) {
  std::vector<std::string> out{std::string(value)};
  for (std::string form : {percent_encode(value), json_escape(value)})
    if (std::ranges::find(out, form) == out.end()) out.push_back(std::move(form));
  return out;
}

}  // namespace hutch::net
