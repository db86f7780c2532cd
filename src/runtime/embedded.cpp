#include "runtime/embedded.h"

#include <fmt/format.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sys.h"

extern "C" {
// From the files that embed.py writes.
extern const char hutch_agent_begin[], hutch_agent_end[], hutch_agent_digest[];
extern const char hutch_stage_begin[], hutch_stage_end[], hutch_stage_digest[];
}

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U  // Linux 6.3
#endif

namespace hutch::runtime {

namespace {

EmbeddedProgram program(const char* begin, const char* end, const char* digest) {
  return {{begin, static_cast<size_t>(end - begin)}, digest};
}

}  // namespace

EmbeddedProgram agent_program() {
  return program(hutch_agent_begin, hutch_agent_end, hutch_agent_digest);
}

EmbeddedProgram stage_program() {
  return program(hutch_stage_begin, hutch_stage_end, hutch_stage_digest);
}

std::string program_file(const EmbeddedProgram& program, const std::string& folder) {
  const std::string path = fmt::format("{}/{}", folder, program.digest);
  // The name promises the content, but a full disk or a careless hand may have shortened it: the size is
  // checked too.
  const auto whole = [&] {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0 && static_cast<size_t>(st.st_size) == program.bytes.size();
  };
  if (whole()) return path;
  sys::make_dirs(folder, 0711);
  const UniqueFd turn = sys::lock_folder(folder);
  if (whole()) return path;
  // Always the same name: what a server that dies over it leaves is overwritten by the next one.
  const std::string writing = folder + "/.writing";
  ::unlink(writing.c_str());
  sys::write_file(writing, program.bytes, 0555);
  if (::rename(writing.c_str(), path.c_str()) != 0) throw sys_error(errno, "rename", path);
  return path;
}

UniqueFd program_memory(const EmbeddedProgram& program) {
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  UniqueFd fd(::memfd_create("hutch-stage", kFlags | MFD_EXEC));
  if (!fd && errno == EINVAL) fd = UniqueFd(::memfd_create("hutch-stage", kFlags));
  if (!fd && errno == EACCES) return {};
  if (!fd) throw sys_error(errno, "memfd_create");
  sys::write_all(fd.get(), program.bytes);
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
    throw sys_error(errno, "seal", "hutch-stage");
  return fd;
}

}  // namespace hutch::runtime
