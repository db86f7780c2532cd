#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

/// How secrets are put into texts and taken out of them again.
namespace hutch::net {

std::string replace_all(std::string_view text, std::string_view what, std::string_view with);
/// All but letters, digits and -._~ as %XX (RFC 3986).
std::string percent_encode(std::string_view text);
/// As it stands between the quotes of a JSON string.
std::string json_escape(std::string_view text);
std::string base64_encode(std::string_view bytes);
/// Empty when it is none.
std::string base64_decode(std::string_view text);

/// The target of a request with what `change` makes of the values of this parameter of its query.
std::string change_in_query(std::string_view target, std::string_view parameter,
                            const std::function<std::string(std::string_view)>& change);

/// Hides texts in what passes, wherever it is cut: each of their bytes becomes `*`, so that lengths stay
/// true. Nothing is held back but what may be the beginning of one of them.
class Mask {
 public:
  Mask() = default;
  explicit Mask(std::vector<std::string> hidden);
  ~Mask();
  Mask(Mask&& other) noexcept = default;
  Mask& operator=(Mask&& other) noexcept = default;

  bool hides_nothing() const noexcept { return hidden_.empty(); }
  /// What can be shown by now; finish() for the rest.
  std::string pass(std::string_view bytes);
  std::string finish();
  /// A text that is whole.
  std::string apply(std::string_view text) const;

 private:
  void cover(std::string_view text, std::string& shown) const;
  size_t undecided(std::string_view text) const;

  std::vector<std::string> hidden_;
  std::string held_, shown_;  // what is held back, as it came and as it will be shown
};

/// The forms in which a server may repeat a value: as it is, in a URL, in JSON.
std::vector<std::string> forms_of(std::string_view value);

}  // namespace hutch::net
