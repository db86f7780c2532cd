#include "runtime/trust_bundle.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "base/sha256.h"
#include "base/sys.h"

namespace hutch::runtime {

namespace {

constexpr size_t kMaxBundleBytes = 16 << 20;

/// As Debian and Alpine, Fedora, openSUSE and Arch name it.
constexpr std::array kHostBundles = {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                                     "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};

/// Empty: the host trusts nobody.
std::string host_bundle() {
  for (const char* path : kHostBundles)
    if (sys::exists(path)) return path;
  return {};
}

std::string bundle_name(const std::string& host, const std::string& certificate) {
  std::string facts = certificate;
  struct stat st {};
  if (!host.empty() && ::stat(host.c_str(), &st) == 0)
    facts +=
        fmt::format("{} {} {} {}.{}", host, st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  return fmt::format("ca-bundle-{}.crt", sha256_hex(facts).substr(0, 16));
}

/// Of what the host trusted before. Sandboxes that run keep what they have, and a server that has just found
/// the name of one has a day to bind it.
void remove_old(const std::string& folder, const std::string& current) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const auto day_ago = fs::file_time_type::clock::now() - std::chrono::hours(24);
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const bool is_bundle = entry.path().filename().string().starts_with("ca-bundle-");
    if (is_bundle && entry.path() != current && entry.last_write_time(ignored) < day_ago)
      fs::remove(entry.path(), ignored);
  }
}

}  // namespace

std::string trust_bundle(const std::string& folder, const std::string& certificate) {
  const std::string host = host_bundle(), path = folder + "/" + bundle_name(host, certificate);
  if (sys::exists(path)) return path;
  sys::make_dirs(folder, 0711);
  const UniqueFd turn = sys::lock_folder(folder);
  if (sys::exists(path)) return path;  // another server was faster
  std::string text = host.empty() ? std::string() : sys::read_file(host, kMaxBundleBytes);
  if (!text.empty() && !text.ends_with('\n')) text += '\n';
  // Always the same name: what a server that dies over it leaves is overwritten by the next one.
  const std::string writing = folder + "/.writing-ca-bundle";
  ::unlink(writing.c_str());
  sys::write_file(writing, text + certificate, 0444);
  if (::rename(writing.c_str(), path.c_str()) != 0) throw sys_error(errno, "rename", path);
  remove_old(folder, path);
  return path;
}

}  // namespace hutch::runtime
