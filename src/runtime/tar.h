#pragma once

#include <time.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace hutch::runtime {

/// One thing in a tar archive. Names are bytes.
struct TarEntry {
  enum class Kind : char {
    file = '0',
    hard_link = '1',
    symlink = '2',
    character_device = '3',
    block_device = '4',
    folder = '5',
    fifo = '6',
    socket = 's',  // tar has none: a fifo with a mark of ours
  };
  std::string name;  // of a folder without the '/' that tar puts behind it
  Kind kind = Kind::file;
  uint32_t mode = 0;  // the lowest twelve bits
  uint64_t uid = 0, gid = 0;
  timespec mtime{};
  std::string link;  // what a link leads to
  uint64_t major = 0, minor = 0;
  std::map<std::string, std::string> attributes;  // extended ones
  uint64_t size = 0;                              // of a file, with its holes
  uint64_t stored = 0;                            // bytes that follow
  bool sparse = false;                            // of which the first are a map of the data, see TarMap
};

/// What begins the content of a file with holes, GNU's format 1.0: where its data is.
struct TarMap {
  struct Piece {
    uint64_t at = 0, length = 0;
  };
  std::vector<Piece> pieces;

  /// Padded to whole blocks.
  std::string encoded() const;
};

inline constexpr size_t kTarBlock = 512;
/// Of an entry: name, attributes and all. More is refused.
inline constexpr size_t kMostTarHeader = 1u << 20;

/// The header blocks in the pax format, which GNU tar, bsdtar and Python read. Throws invalid_argument when
/// they would be more than a reader takes.
std::string tar_header(const TarEntry& entry);
/// The zeros behind so many bytes of content.
std::string_view tar_padding(uint64_t stored);
/// What every archive ends with.
std::string tar_end();

/// Reads what tar_header() writes, from whoever: nothing in it is trusted. What is not understood, what
/// contradicts itself and what is cut off is an Error (invalid_argument). No libarchive: what it could read
/// besides is not wanted, and names, sockets and times before 1970 are to come back as they were.
class TarReader {
 public:
  /// The descriptor stays the caller's.
  explicit TarReader(int fd) : fd_(fd) {}

  /// False at the archive's end. Skips what is left of the entry before.
  bool next();
  /// For a part of an archive, which has no end of its own: false where nothing more comes.
  bool next_of_part();
  const TarEntry& entry() const noexcept { return entry_; }
  /// Its header as it was read.
  const std::string& header() const noexcept { return header_; }
  /// The next piece of its content, not longer than this; empty at the end. Valid until the next call.
  std::string_view content(uint64_t most = UINT64_MAX);
  /// The same with the padding behind the content. One or the other for an entry.
  std::string_view content_and_padding(uint64_t most = UINT64_MAX);
  /// The map that the content of a sparse file begins with.
  TarMap map();
  /// Throws when anything but zeros follows the end.
  void expect_nothing_more();
  uint64_t bytes() const noexcept { return bytes_; }

 private:
  bool fill();
  std::string block();
  bool read_header(std::string& block, std::map<std::string, std::string>& pax);
  std::string read_pax(const std::string& block);

  int fd_;
  std::string buffer_;
  size_t at_ = 0;
  uint64_t bytes_ = 0;
  TarEntry entry_;
  std::string header_;
  uint64_t stored_left_ = 0, padded_left_ = 0;
};

}  // namespace hutch::runtime
