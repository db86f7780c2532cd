#include "net/secret.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <asio/experimental/awaitable_operators.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/process.h"
#include "base/sys.h"
#include "net/http_head.h"

extern char** environ;

namespace hutch::net {

namespace {

constexpr auto kCommandTime = std::chrono::seconds(10);

/// Why not MADV_DONTDUMP for the values: they pass through buffers of OpenSSL's and the heap's as well. What
/// this process reads of its own /proc it may read nevertheless (ptrace(2), "same thread group").
void hide_this_process() {
  if (::prctl(PR_SET_DUMPABLE, 0) != 0) throw sys_error(errno, "prctl", "PR_SET_DUMPABLE");
}

void check_value(const SecretValue& value) {
  const std::string_view text = value.reveal();
  if (text.empty()) throw Error(Errc::unavailable, "it is empty");
  if (text.size() > kMaxSecretBytes)
    throw Error(Errc::unavailable, fmt::format("it is longer than {} bytes", kMaxSecretBytes));
  if (text.size() < kMinSecretBytes)
    throw Error(Errc::unavailable, fmt::format("it is shorter than {} characters", kMinSecretBytes));
  if (text.find_first_of(std::string_view("\r\n\0", 3)) != text.npos)
    throw Error(Errc::unavailable, "it has a line break or a NUL in it");
}

void read_variable(const std::string& name, SecretValue& out) {
  const char* text = std::getenv(name.c_str());
  if (text == nullptr)
    throw Error(Errc::unavailable,
                fmt::format("the variable {} is not set in the server's environment", name));
  const size_t size = std::min(std::strlen(text), out.room_size());
  std::memcpy(out.room(), text, size);
  out.grow(size);
}

void read_plain_file(const std::string& path, SecretValue& out) {
  const UniqueFd fd = sys::open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  struct stat st {};
  // Anything else may not answer, and all streams wait on this thread.
  if (::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode))
    throw Error(Errc::unavailable, path + " is not a plain file");
  for (;;) {
    const ssize_t count = sys::retry_eintr([&] { return ::read(fd.get(), out.room(), out.room_size()); });
    if (count < 0) throw sys_error(errno, "read", path);
    if (count == 0) return;
    out.grow(static_cast<size_t>(count));
  }
}

using Descriptor = asio::posix::stream_descriptor;
constexpr auto kWait = asio::use_awaitable;

/// To its end, or until there is more than a value may have.
asio::awaitable<void> read_output(Descriptor& from, SecretValue& out) {
  while (out.room_size() > 0) {
    asio::error_code err;
    const size_t count = co_await from.async_read_some(asio::buffer(out.room(), out.room_size()),
                                                       asio::redirect_error(kWait, err));
    if (err) co_return;
    out.grow(count);
  }
}

/// Waits for the end of the command itself: what it leaves in the background may hold its output open.
asio::awaitable<void> wait_for_command(Process& process, UniqueFd output, SecretValue& out) {
  using namespace asio::experimental::awaitable_operators;
  const auto executor = co_await asio::this_coro::executor;
  Descriptor from(executor, output.release()), ended(executor, pidfd_open(process.pid()).release());
  from.non_blocking(true);
  asio::steady_timer deadline(executor, kCommandTime);
  const auto end = [&] { return ended.async_wait(Descriptor::wait_read, kWait); };
  auto first = co_await (read_output(from, out) || end() || deadline.async_wait(kWait));
  if (first.index() == 0 && out.room_size() > 0) {
    const auto second = co_await (end() || deadline.async_wait(kWait));
    if (second.index() == 1) first.emplace<2>();
  }
  if (first.index() == 2)
    throw Error(Errc::timeout, fmt::format("its command has not ended within {} s", kCommandTime.count()));
  asio::error_code no_more;
  while (!no_more && out.room_size() > 0)  // what came just before the end
    out.grow(from.read_some(asio::buffer(out.room(), out.room_size()), no_more));
}

/// What it says on stderr is not shown either: it may repeat what it prints.
asio::awaitable<void> read_command(const std::vector<std::string>& argv, SecretValue& out) {
  SpawnOptions options{.argv = argv, .env = {}, .own_group = true};
  options.argv[0] = find_program(argv[0]);
  if (options.argv[0].empty())
    throw Error(Errc::unavailable, fmt::format("its command '{}' is not there", argv[0]));
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry)
    options.env.emplace_back(*entry);
  sys::Pipe pipe = sys::pipe();
  options.stdio[1] = pipe.write_end.get();
  Process process = Process::spawn(options);  // killed where this ends, whatever the reason
  pipe.write_end.reset();
  co_await wait_for_command(process, std::move(pipe.read_end), out);
  if (out.room_size() == 0) co_return;  // too long: no matter how it ends
  const ExitStatus status = process.wait(Clock::now());
  if (status.signal != 0)
    throw Error(Errc::unavailable, fmt::format("its command was ended by signal {}", status.signal));
  if (status.code != 0)
    throw Error(Errc::unavailable, fmt::format("its command ended with exit code {}", status.code));
}

asio::awaitable<std::shared_ptr<const SecretValue>> read_value(const config::Secret& from) {
  auto value = std::make_shared<SecretValue>();
  if (!from.env.empty())
    read_variable(from.env, *value);
  else if (!from.file.empty())
    read_plain_file(from.file, *value);
  else
    co_await read_command(from.command, *value);
  value->drop_last_newline();
  check_value(*value);
  co_return value;
}

std::string hint_for(const std::string& name, const config::Secret& settings) {
  const char* const source = !settings.env.empty() ? "env" : !settings.file.empty() ? "file" : "command";
  return fmt::format("see `secrets.{}.{}` in the configuration", name, source);
}

}  // namespace

SecretValue::~SecretValue() {
  ::explicit_bzero(bytes_.get(), kMaxSecretBytes + 2);
}

void SecretValue::drop_last_newline() noexcept {
  if (size_ > 0 && bytes_[size_ - 1] == '\n') --size_;
}

/// One at a time for each secret, however many wait for it.
struct SecretStore::Reading {
  asio::steady_timer done;
  std::optional<Error> failed;
};

struct SecretStore::Entry {
  std::shared_ptr<const SecretValue> value;
  std::shared_ptr<Reading> reading;
};

SecretStore::SecretStore(std::map<std::string, config::Secret> all) : settings_(std::move(all)) {
  if (!settings_.empty()) hide_this_process();
}

SecretStore::~SecretStore() = default;

const config::Secret* SecretStore::find(const std::string& name) const {
  const auto it = settings_.find(name);
  return it == settings_.end() ? nullptr : &it->second;
}

std::shared_ptr<const SecretValue> SecretStore::known(const std::string& name) const {
  const auto it = entries_.find(name);
  return it == entries_.end() ? nullptr : it->second.value;
}

asio::awaitable<void> SecretStore::read(const std::string& name, const config::Secret& settings,
                                        Entry& entry) {
  const auto executor = co_await asio::this_coro::executor;
  const auto reading =
      std::make_shared<Reading>(asio::steady_timer(executor, asio::steady_timer::time_point::max()));
  entry.reading = reading;
  try {
    entry.value = co_await read_value(settings);
  } catch (const Error& error) {
    reading->failed = error;
    reading->failed->during("reading the secret " + name);
    reading->failed->hint(hint_for(name, settings));
  }
  entry.reading.reset();
  reading->done.cancel();
  if (reading->failed) throw *reading->failed;
}

asio::awaitable<std::shared_ptr<const SecretValue>> SecretStore::value(std::string name) {
  const config::Secret* settings = find(name);
  if (settings == nullptr) throw Error(Errc::not_found, "there is no secret " + name);
  Entry& entry = entries_[name];
  if (const auto others = entry.reading) {
    asio::error_code cancelled;
    co_await others->done.async_wait(asio::redirect_error(kWait, cancelled));
    if (others->failed) throw *others->failed;
  }
  if (!entry.value) co_await read(name, *settings, entry);
  co_return entry.value;
}

std::map<std::string, std::string> Secrets::new_environment(const std::vector<std::string>& names) {
  std::map<std::string, std::string> out;
  for (const std::string& name : names)
    out[name] = fmt::format("hutch-secret-{}-{}", name, sys::random_hex(16));
  return out;
}

Secrets::Secrets(std::shared_ptr<SecretStore> store, std::map<std::string, std::string> environment)
    : store_(std::move(store)), environment_(std::move(environment)) {}

bool Secrets::applies_to(const std::string& host, uint16_t port) const {
  return !uses_for(host, port).empty();
}

std::vector<SecretUse> Secrets::uses_for(const std::string& host, uint16_t port) const {
  std::vector<SecretUse> out;
  for (const auto& [name, placeholder] : environment_) {
    const config::Secret* settings = store_->find(name);
    if (settings == nullptr) continue;
    const auto is_there = [&](const std::string& pattern) { return host_matches(pattern, host, port); };
    if (std::ranges::any_of(settings->hosts, is_there)) out.push_back({name, placeholder, settings});
  }
  return out;
}

bool host_matches(std::string_view pattern, std::string_view host, uint16_t port) {
  const size_t colon = pattern.find(':');
  const std::string wanted_port = colon == pattern.npos ? "443" : std::string(pattern.substr(colon + 1));
  pattern = pattern.substr(0, colon);
  if (wanted_port != std::to_string(port)) return false;
  if (!pattern.starts_with("*.")) return same_word(pattern, host);
  pattern.remove_prefix(1);
  return host.size() > pattern.size() && same_word(host.substr(host.size() - pattern.size()), pattern);
}

}  // namespace hutch::net
