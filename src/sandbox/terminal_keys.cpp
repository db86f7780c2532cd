#include "sandbox/terminal_keys.h"

#include <algorithm>
#include <optional>

namespace hutch::sandbox {

namespace {

/// Longer than any key's name with all modifiers: no search through a long text for each "<" in it.
constexpr size_t kMaxName = 20;

struct NamedKey {
  std::string_view name;
  int key;
};

constexpr NamedKey kKeys[] = {
    {"enter", VTERM_KEY_ENTER},      {"return", VTERM_KEY_ENTER},     {"cr", VTERM_KEY_ENTER},
    {"tab", VTERM_KEY_TAB},          {"ins", VTERM_KEY_INS},          {"insert", VTERM_KEY_INS},
    {"del", VTERM_KEY_DEL},          {"delete", VTERM_KEY_DEL},       {"up", VTERM_KEY_UP},
    {"down", VTERM_KEY_DOWN},        {"left", VTERM_KEY_LEFT},        {"right", VTERM_KEY_RIGHT},
    {"home", VTERM_KEY_HOME},        {"end", VTERM_KEY_END},          {"pgup", VTERM_KEY_PAGEUP},
    {"pageup", VTERM_KEY_PAGEUP},    {"pgdn", VTERM_KEY_PAGEDOWN},    {"pagedown", VTERM_KEY_PAGEDOWN},
    {"f1", VTERM_KEY_FUNCTION(1)},   {"f2", VTERM_KEY_FUNCTION(2)},   {"f3", VTERM_KEY_FUNCTION(3)},
    {"f4", VTERM_KEY_FUNCTION(4)},   {"f5", VTERM_KEY_FUNCTION(5)},   {"f6", VTERM_KEY_FUNCTION(6)},
    {"f7", VTERM_KEY_FUNCTION(7)},   {"f8", VTERM_KEY_FUNCTION(8)},   {"f9", VTERM_KEY_FUNCTION(9)},
    {"f10", VTERM_KEY_FUNCTION(10)}, {"f11", VTERM_KEY_FUNCTION(11)}, {"f12", VTERM_KEY_FUNCTION(12)},
};

/// Keys that are characters.
struct NamedCharacter {
  std::string_view name, character;
};
constexpr NamedCharacter kCharacters[] = {{"space", " "}, {"esc", "\033"},       {"escape", "\033"},
                                          {"bs", "\x7F"}, {"backspace", "\x7F"}, {"lt", "<"},
                                          {"gt", ">"}};

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}
char upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c & ~0x20) : c;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = lower(c);
  return result;
}

/// `text` is one character of UTF-8 and nothing else.
bool one_character(std::string_view text) {
  if (text.empty() || (static_cast<uint8_t>(text[0]) & 0xC0) == 0x80) return false;
  return std::all_of(text.begin() + 1, text.end(),
                     [](char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; });
}

/// The byte of a control key; nothing when terminals have none for it.
std::optional<char> control_byte(char c) {
  c = upper(c);
  if (c == ' ') return '\0';
  if (c == '/') return '\x1F';
  if (c == '?') return '\x7F';
  if (c == '\x7F') return '\b';
  if (c >= '@' && c <= '_') return static_cast<char>(c & 0x1F);
  if (c == '\033') return c;
  return std::nullopt;
}

std::optional<std::string> character_key(std::string character, int modifiers) {
  if (character.size() == 1 && (modifiers & VTERM_MOD_SHIFT)) character[0] = upper(character[0]);
  if (modifiers & VTERM_MOD_CTRL) {
    const auto control = character.size() == 1 ? control_byte(character[0]) : std::nullopt;
    if (!control) return std::nullopt;
    character[0] = *control;
  }
  return (modifiers & VTERM_MOD_ALT ? "\033" : "") + character;
}

std::string named_key(int key, int modifiers, const KeyEncoder& encode) {
  // Of these a terminal sends only what programs know: libvterm's own forms for more would be typed as text.
  if (key == VTERM_KEY_ENTER) modifiers &= VTERM_MOD_ALT;
  if (key == VTERM_KEY_TAB) modifiers &= modifiers & VTERM_MOD_SHIFT ? VTERM_MOD_SHIFT : VTERM_MOD_ALT;
  return encode(static_cast<VTermKey>(key), static_cast<VTermModifier>(modifiers));
}

/// `name`: what stands between the brackets. Nothing when it is no key.
std::optional<std::string> key(std::string_view name, const KeyEncoder& encode) {
  int modifiers = 0;
  while (name.size() > 2 && name[1] == '-') {
    const char c = lower(name[0]);
    if (c == 'c') {
      modifiers |= VTERM_MOD_CTRL;
    } else if (c == 'a' || c == 'm') {
      modifiers |= VTERM_MOD_ALT;
    } else if (c == 's') {
      modifiers |= VTERM_MOD_SHIFT;
    } else {
      break;
    }
    name.remove_prefix(2);
  }
  const std::string wanted = lower(name);
  for (const NamedKey& named : kKeys)
    if (named.name == wanted) return named_key(named.key, modifiers, encode);
  for (const NamedCharacter& named : kCharacters)
    if (named.name == wanted) return character_key(std::string(named.character), modifiers);
  // Without a modifier, "<b>" is text.
  if (modifiers && one_character(name)) return character_key(std::string(name), modifiers);
  return std::nullopt;
}

}  // namespace

std::string typed(std::string_view text, const KeyEncoder& encode) {
  std::string result;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '<') {
      const std::string_view rest = text.substr(at + 1, kMaxName);
      const size_t end = rest.find('>');
      if (end != rest.npos) {
        if (const auto bytes = key(rest.substr(0, end), encode)) {
          result += *bytes;
          at += end + 1;
          continue;
        }
      }
    }
    if (c == '\r' && text.substr(at + 1, 1) == "\n") continue;
    if (c == '\n') {
      result += encode(VTERM_KEY_ENTER, VTERM_MOD_NONE);
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace hutch::sandbox
