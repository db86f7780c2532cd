/// Feeds bytes to what reads archives of templates. Nothing may crash, every failure must be an Error, and a
/// header that was read must be read again as the same when it is written.
///
/// With libFuzzer this is a fuzzer; with replay_main.cpp a program that replays files and folders.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/sys.h"
#include "runtime/tar.h"

namespace {

using namespace hutch;
using runtime::TarEntry;
using runtime::TarReader;

UniqueFd file_of(std::string_view bytes) {
  UniqueFd fd(::memfd_create("archive", MFD_CLOEXEC));
  sys::write_all(fd.get(), bytes);
  ::lseek(fd.get(), 0, SEEK_SET);
  return fd;
}

/// No fuzzer finds checksums: every header gets the right one.
std::string with_checksums(std::string bytes) {
  constexpr size_t kAt = 148, kDigits = 8, kMagic = 257;
  for (size_t block = 0; block + runtime::kTarBlock <= bytes.size(); block += runtime::kTarBlock) {
    if (bytes.compare(block + kMagic, 5, "ustar") != 0) continue;
    std::fill_n(bytes.begin() + static_cast<long>(block + kAt), kDigits, ' ');
    unsigned sum = 0;
    for (size_t i = 0; i < runtime::kTarBlock; ++i) sum += static_cast<unsigned char>(bytes[block + i]);
    char digits[kDigits];
    std::snprintf(digits, sizeof digits, "%06o", sum & 0777777);
    std::memcpy(bytes.data() + block + kAt, digits, 7);
  }
  return bytes;
}

void check_same(const TarEntry& a, const TarEntry& b) {
  if (a.name != b.name || a.kind != b.kind || a.mode != b.mode || a.uid != b.uid || a.gid != b.gid ||
      a.mtime.tv_sec != b.mtime.tv_sec || a.mtime.tv_nsec != b.mtime.tv_nsec || a.link != b.link ||
      a.major != b.major || a.minor != b.minor || a.attributes != b.attributes || a.size != b.size ||
      a.stored != b.stored || a.sparse != b.sparse)
    std::abort();
}

void round_trip(const TarEntry& entry) {
  std::string header;
  try {
    header = runtime::tar_header(entry);
  } catch (const Error&) {
    return;  // written in another way it is too long
  }
  const UniqueFd file = file_of(header);
  TarReader reader(file.get());
  if (!reader.next_of_part()) std::abort();
  check_same(entry, reader.entry());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const UniqueFd file = file_of(with_checksums({reinterpret_cast<const char*>(data), size}));
  try {
    TarReader reader(file.get());
    while (reader.next()) {
      round_trip(reader.entry());
      uint64_t left = reader.entry().stored;
      if (reader.entry().sparse)
        for (const auto& piece : reader.map().pieces)
          if (piece.at + piece.length > reader.entry().size) std::abort();
      for (std::string_view piece; !(piece = reader.content()).empty(); left -= piece.size())
        if (piece.size() > left) std::abort();
    }
    reader.expect_nothing_more();
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) std::abort();
  }
  return 0;
}
