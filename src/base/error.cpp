#include "base/error.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace hutch {

std::string_view errc_name(Errc code) noexcept {
  switch (code) {
    case Errc::invalid_argument:
      return "invalid_argument";
    case Errc::not_found:
      return "not_found";
    case Errc::conflict:
      return "conflict";
    case Errc::denied:
      return "denied";
    case Errc::unavailable:
      return "unavailable";
    case Errc::limit_exceeded:
      return "limit_exceeded";
    case Errc::timeout:
      return "timeout";
    case Errc::internal:
      return "internal";
  }
  return "internal";
}

Error sys_error(int err, std::string_view call, std::string_view object) {
  Errc code = Errc::internal;
  switch (err) {
    case EACCES:
    case EPERM:
    case EROFS:
      code = Errc::denied;
      break;
    case ENOENT:
    case ESRCH:
      code = Errc::not_found;
      break;
    case EEXIST:
    case ESTALE:
    case EBUSY:
      code = Errc::conflict;
      break;
    case EINVAL:
    case EISDIR:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP:
      code = Errc::invalid_argument;
      break;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case EFBIG:
      code = Errc::limit_exceeded;
      break;
    case ENOSYS:
    case EOPNOTSUPP:
    case ENODEV:
      code = Errc::unavailable;
      break;
    default:
      break;
  }
  const char* symbol = ::strerrorname_np(err);
  return Error(code, fmt::format("{}{}{}: {} ({})", call, object.empty() ? "" : " ", object,
                                 std::strerror(err), symbol != nullptr ? symbol : std::to_string(err)))
      .with_os_error(err);
}

std::string error_text(const Error& error) {
  std::string out = error.what();
  for (const auto& step : error.steps()) out += fmt::format("\n  while {}", step);
  if (!error.hint().empty()) out += fmt::format("\nTry: {}", error.hint());
  return out;
}

}  // namespace hutch
