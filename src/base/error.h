#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hutch {

/// What the caller can do about it. The names are part of the contract (`error.code` in structured results).
enum class Errc {
  invalid_argument,
  not_found,
  conflict,
  denied,
  unavailable,
  limit_exceeded,
  timeout,
  internal
};

std::string_view errc_name(Errc code) noexcept;

/// The one exception type of this program. Holds facts, not prose: what failed, during which steps,
/// what to try. The edge (tool result, JSON-RPC error, terminal) decides how it is shown.
class Error : public std::exception {
 public:
  Error(Errc code, std::string what) : code_(code), what_(std::move(what)) {}

  Error& during(std::string step) & {
    steps_.push_back(std::move(step));
    return *this;
  }
  Error& hint(std::string text) & {
    hint_ = std::move(text);
    return *this;
  }
  Error&& hint(std::string text) && {
    hint_ = std::move(text);
    return std::move(*this);
  }

  Errc code() const noexcept { return code_; }
  const char* what() const noexcept override { return what_.c_str(); }
  const std::vector<std::string>& steps() const noexcept { return steps_; }  // innermost first
  const std::string& hint() const noexcept { return hint_; }
  /// The errno behind it, on the host or in the sandbox; 0 when there is none.
  int os_error() const noexcept { return os_error_; }
  Error&& with_os_error(int err) && {
    os_error_ = err;
    return std::move(*this);
  }

 private:
  Errc code_;
  std::string what_;
  std::string hint_;
  std::vector<std::string> steps_;
  int os_error_ = 0;
};

/// `err` is a parameter, so that the caller reads errno before anything else can change it.
/// Text: "open /nope: No such file or directory (ENOENT)".
Error sys_error(int err, std::string_view call, std::string_view object = {});

/// What failed, during what, what to try: the text of an isError result and of a terminal message.
std::string error_text(const Error& error);

/// Runs fn; a passing Error learns which step it interrupted.
template <class Fn>
decltype(auto) during(std::string_view step, Fn&& fn) {
  try {
    return std::forward<Fn>(fn)();
  } catch (Error& e) {
    e.during(std::string(step));
    throw;
  }
}

}  // namespace hutch
