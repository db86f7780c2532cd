#include "runtime/agent_binary.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <string_view>

#include "base/sha256.h"
#include "base/sys.h"

extern "C" {
// From agent_blob.S, which includes the built agent byte by byte.
extern const char hutch_agent_begin[];
extern const char hutch_agent_end[];
}

namespace hutch::runtime {

std::string ready_agent_binary(const std::string& data_folder) {
  const std::string_view blob(hutch_agent_begin, static_cast<size_t>(hutch_agent_end - hutch_agent_begin));
  const std::string folder = data_folder + "/agent";
  const std::string path = fmt::format("{}/{}", folder, sha256_hex(blob).substr(0, 16));
  // The name promises the content, but a full disk or a careless hand may have shortened it: the size is
  // checked too.
  struct stat st {};
  if (::stat(path.c_str(), &st) == 0 && static_cast<size_t>(st.st_size) == blob.size()) return path;
  sys::make_dirs(folder, 0711);
  sys::replace_file(path, blob, 0555);
  return path;
}

}  // namespace hutch::runtime
