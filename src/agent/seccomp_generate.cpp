#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "agent/seccomp_policy.h"

/// Build-time program: turns seccomp_policy.cpp into two BPF filters and writes them as C++ to stdout.
///
/// Two, because a filter has one default: the first allows what is listed and refuses the rest, the second
/// refuses single argument values of allowed calls. The kernel runs both and takes the stricter answer.
namespace {

using namespace hutch::agent;

[[noreturn]] void fail(const char* what, int error) {
  std::fprintf(stderr, "seccomp_generate: %s: %s\n", what, std::strerror(-error));
  std::exit(1);
}

/// Negative when the native architecture has no such call (arm64 has no `open`).
int resolve(const char* name, int number) {
  const int known = seccomp_syscall_resolve_name(name);
  return known >= 0 ? known : number;
}

void add_rule(scmp_filter_ctx filter, uint32_t action, const policy::Rule& rule) {
  scmp_arg_cmp comparisons[3];
  for (size_t i = 0; i < rule.comparisons; ++i) {
    const policy::Comparison& c = rule.when[i];
    comparisons[i] = {c.argument, SCMP_CMP_MASKED_EQ, c.mask, c.value};
  }
  const auto count = static_cast<unsigned>(rule.comparisons);
  const int number = resolve(rule.name, -1);
  const int result =
      number < 0 ? -ENOSYS : seccomp_rule_add_array(filter, action, number, count, comparisons);
  if (result != 0) fail(rule.name, result);
}

void add_call(scmp_filter_ctx filter, uint32_t action, const policy::Call& call) {
  const int number = resolve(call.name, call.number);
  if (number < 0) return;
  const int result = seccomp_rule_add(filter, action, number, 0);
  if (result != 0) fail(call.name, result);
}

scmp_filter_ctx new_filter(uint32_t default_action) {
  scmp_filter_ctx filter = seccomp_init(default_action);
  if (filter == nullptr) fail("seccomp_init", -ENOMEM);
  constexpr uint32_t kBinaryTree = 2;
  int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, kBinaryTree);
  if (result == 0) result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));
  if (result != 0) fail("seccomp_attr_set", result);
  return filter;
}

std::vector<sock_filter> compile(scmp_filter_ctx filter) {
  const int fd = memfd_create("bpf", 0);
  if (const int result = seccomp_export_bpf(filter, fd); result != 0) fail("seccomp_export_bpf", result);
  std::vector<sock_filter> program(static_cast<size_t>(lseek(fd, 0, SEEK_END)) / sizeof(sock_filter));
  const size_t bytes = program.size() * sizeof(sock_filter);
  if (pread(fd, program.data(), bytes, 0) != static_cast<ssize_t>(bytes)) fail("read", -errno);
  close(fd);
  seccomp_release(filter);
  return program;
}

std::vector<sock_filter> allow_list() {
  const scmp_filter_ctx filter = new_filter(SCMP_ACT_ERRNO(EPERM));
  for (const auto& call : policy::allowed_calls()) add_call(filter, SCMP_ACT_ALLOW, call);
  for (const auto& call : policy::pretended_missing()) add_call(filter, SCMP_ACT_ERRNO(ENOSYS), call);
  for (const auto& rule : policy::allowed_when()) add_rule(filter, SCMP_ACT_ALLOW, rule);
  std::vector<sock_filter> program = compile(filter);
  // libseccomp compares single numbers only. x32 numbers (bit 30) lie above the limit too, and what comes
  // by another architecture's entry has its own check in what follows.
  const sock_filter newer_calls[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, policy::kNewestCall, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
  };
  program.insert(program.begin(), std::begin(newer_calls), std::end(newer_calls));
  return program;
}

std::vector<sock_filter> argument_filter() {
  const scmp_filter_ctx filter = new_filter(SCMP_ACT_ALLOW);
  for (const auto& rule : policy::refused_when()) add_rule(filter, SCMP_ACT_ERRNO(EPERM), rule);
  return compile(filter);
}

void print(const char* name, const std::vector<sock_filter>& program) {
  std::printf("constexpr sock_filter %s[] = {\n", name);
  for (const sock_filter& step : program) {
    std::printf("    {0x%04x, %u, %u, 0x%08x},\n", step.code, step.jt, step.jf, step.k);
  }
  std::printf("};\n");
}

}  // namespace

int main() {
  std::printf("// Written by seccomp_generate from seccomp_policy.cpp.\n");
  print("kAllowList", allow_list());
  print("kArgumentFilter", argument_filter());
}
