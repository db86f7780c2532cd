#include "schema/bytes.h"

#include <array>
#include <charconv>

namespace hutch {

namespace {

struct Unit {
  char letter;
  unsigned shift;
};
constexpr std::array<Unit, 4> kUnits = {{{'t', 40}, {'g', 30}, {'m', 20}, {'k', 10}}};
// Sizes end up in int64 fields of the kernel and of JSON readers.
constexpr uint64_t kMaxBytes = INT64_MAX;

std::optional<unsigned> shift_of(std::string_view suffix) {
  if (suffix.empty() || suffix == "b" || suffix == "B") return 0;
  const char letter = static_cast<char>(suffix.front() | 0x20);
  suffix.remove_prefix(1);
  const bool plain = suffix.empty() || suffix == "b" || suffix == "B" || suffix == "ib" || suffix == "iB";
  for (const Unit& unit : kUnits)
    if (plain && unit.letter == letter) return unit.shift;
  return std::nullopt;
}

}  // namespace

std::optional<Bytes> parse_bytes(std::string_view text) {
  uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, failure] = std::from_chars(text.data(), end, number);
  if (failure != std::errc{}) return std::nullopt;
  const auto shift = shift_of({rest, static_cast<size_t>(end - rest)});
  if (!shift || number > kMaxBytes >> *shift) return std::nullopt;
  return Bytes{number << *shift};
}

std::string to_string(Bytes bytes) {
  for (const Unit& unit : kUnits)
    if (bytes.value != 0 && bytes.value % (uint64_t{1} << unit.shift) == 0)
      return std::to_string(bytes.value >> unit.shift) + unit.letter;
  return std::to_string(bytes.value);
}

}  // namespace hutch
