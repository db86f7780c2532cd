#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "schema/bytes.h"

/// One description per struct; schema, readers, writers and tables are visitors of it.
///
///     struct ReadArgs {
///       std::string path;
///       int64_t limit = 100;
///       std::optional<std::string> encoding;
///
///       template <class V>
///       void describe(V& v) {
///         v.required("path", path, "File to read.", {.min = 1});
///         v.optional("limit", limit, "Lines to return (default 100).", {.min = 1, .max = 1000});
///         v.optional("encoding", encoding, "How to return it.", {.one_of = {"text", "base64"}});
///       }
///     };
///
/// Members may be bool, int64_t, double, std::string, Bytes, a described struct, std::vector<T> and
/// std::map<std::string, T> of these, and std::optional<T> of any of them (empty: not given). The default of
/// an optional field is its member initializer.
namespace hutch::schema {

/// Constraints of one field. Every visitor sees the same ones.
struct Rules {
  /// Numbers: the value. Bytes: bytes. Strings: characters. Lists and maps: number of elements.
  std::optional<double> min{}, max{};
  /// Allowed texts. For a list: of each element.
  std::vector<std::string_view> one_of{};
};

struct AnyVisitor {
  template <class T>
  void required(const char*, T&, std::string_view, const Rules& = {}) {}
  template <class T>
  void optional(const char*, T&, std::string_view, const Rules& = {}) {}
};

template <class T>
concept Described = requires(T& object, AnyVisitor& visitor) {
  object.describe(visitor);
};

template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

template <class T>
inline constexpr bool is_list = false;
template <class T>
inline constexpr bool is_list<std::vector<T>> = true;

template <class T>
inline constexpr bool is_map = false;
template <class T>
inline constexpr bool is_map<std::map<std::string, T>> = true;

template <class T>
concept Scalar = std::same_as<T, bool> || std::same_as<T, int64_t> || std::same_as<T, double> ||
    std::same_as<T, std::string> || std::same_as<T, Bytes>;

/// For visitors that only look. describe() cannot be const because readers fill the members through it.
template <Described T, class V>
void describe_const(const T& object, V& visitor) {
  const_cast<T&>(object).describe(visitor);
}

}  // namespace hutch::schema
