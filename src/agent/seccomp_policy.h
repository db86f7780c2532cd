#pragma once

#include <cstddef>
#include <cstdint>

/// What system calls the sandbox has, as tables. Read only by the build-time generator.
///
/// The list is no wider than the default profile of Docker without extra capabilities. A call that is not
/// in it gets EPERM; one with a number above kNewestCall gets ENOSYS, so that a libc from the future falls
/// back instead of failing. Calls through another architecture's table (i386, x32) get ENOSYS: their
/// numbers mean other calls.
namespace hutch::agent::policy {

/// mseal, kernel 6.10: the newest call that was judged when this table was written.
inline constexpr uint32_t kNewestCall = 462;

struct Call {
  const char* name;
  int number = -1;  // for calls that libseccomp 2.5 does not know; the same on every architecture
};

struct Comparison {
  unsigned argument;
  uint64_t mask;  // most arguments are 32-bit ints: the kernel ignores what is above (CVE-2019-10063)
  uint64_t value;
};

/// A call that is allowed, or refused, only with certain arguments. All comparisons must hold.
struct Rule {
  const char* name;
  size_t comparisons;
  Comparison when[3];
};

template <class T>
struct Table {
  const T* rows;
  size_t size;
  const T* begin() const { return rows; }
  const T* end() const { return rows + size; }
};

Table<Call> allowed_calls();
/// Allowed when one of the rules of that name holds.
Table<Rule> allowed_when();
/// Refused with EPERM although the call is allowed.
Table<Rule> refused_when();
/// ENOSYS instead of EPERM: libc then uses the older call, whose arguments a filter can see.
Table<Call> pretended_missing();

}  // namespace hutch::agent::policy
