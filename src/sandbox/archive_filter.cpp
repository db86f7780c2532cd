#include "sandbox/archive_filter.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/sys.h"

namespace hutch::sandbox {

namespace {

bool ends_with_any(const std::string& name, std::initializer_list<const char*> ends) {
  return std::any_of(ends.begin(), ends.end(), [&](const char* end) { return name.ends_with(end); });
}

std::string program_for(const std::string& name) {
  if (ends_with_any(name, {".zst", ".tzst"})) return "zstd";
  return ends_with_any(name, {".gz", ".tgz"}) ? "gzip" : "";
}

/// By how it begins.
std::string program_that_made(int file) {
  unsigned char first[4] = {};
  struct stat st {};
  if (::fstat(file, &st) != 0 || !S_ISREG(st.st_mode)) return "";
  const off_t at = ::lseek(file, 0, SEEK_CUR);
  if (at < 0 || ::pread(file, first, sizeof first, at) != sizeof first) return "";
  const std::string_view magic(reinterpret_cast<const char*>(first), sizeof first);
  if (magic == "\x28\xb5\x2f\xfd") return "zstd";
  return magic.starts_with("\x1f\x8b") ? "gzip" : "";
}

}  // namespace

ArchiveFilter::ArchiveFilter(const std::string& program, bool pack, int file)
    : file_(file), program_(program) {
  if (program_.empty()) return;
  const std::string path = find_program(program_);
  if (path.empty())
    throw Error(Errc::unavailable, fmt::format("{} is not installed", program_))
        .hint(fmt::format("apt-get install {0}, or use a file that is not compressed by {0}", program_));
  std::vector<std::string> argv{path, "-q", "-c"};
  if (!pack) argv.push_back("-d");
  if (pack) argv.push_back(program_ == "zstd" ? "-T0" : "-n");
  sys::Pipe data = sys::pipe(), said = sys::pipe();
  const int theirs = (pack ? data.read_end : data.write_end).get();
  process_ =
      hutch::Process::spawn({.argv = std::move(argv),
                             .env = {},
                             .stdio = {pack ? theirs : file, pack ? file : theirs, said.write_end.get()}});
  pipe_ = std::move(pack ? data.write_end : data.read_end);
  said_ = std::move(said.read_end);
}

ArchiveFilter ArchiveFilter::compress(const std::string& name, int file) {
  return {program_for(name), true, file};
}

ArchiveFilter ArchiveFilter::decompress(int file) {
  return {program_that_made(file), false, file};
}

void ArchiveFilter::finish() {
  if (program_.empty()) return;
  pipe_.reset();
  const std::string said = sys::read_all(said_.get(), 64 << 10);
  if (!process_.wait(Clock::now() + std::chrono::minutes(1)).ok())
    throw Error(Errc::unavailable, fmt::format("{} failed: {}", program_, said));
}

}  // namespace hutch::sandbox
