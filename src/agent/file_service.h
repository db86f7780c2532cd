#pragma once

#include "agent/command.h"
#include "agent/file_stream.h"
#include "agent/slots.h"

namespace hutch::agent {

/// The streams of read_file, write_file and list_files. They end with their host.
class FileService {
 public:
  bool has(uint32_t stream) { return find(stream) != nullptr; }
  void read(const wire::ReadFile& request, uint32_t stream, Services& services);
  void write(const wire::WriteFile& request, uint32_t stream, Services& services);
  void list(const wire::ListFiles& request, uint32_t stream, Services& services);
  /// Answered at once.
  void make_folder(const wire::MakeFolder& request, uint32_t stream, Services& services);
  /// A frame for a stream that has() knows.
  void on_frame(const Frame& frame, Services& services);

  void on_event(size_t index, Services& services);
  void take_turn(size_t index, Services& services);
  void drop_all();

  bool has_worker(pid_t pid) const;
  bool on_reaped(pid_t pid);

 private:
  FileStream* find(uint32_t stream);
  FileStream* take_slot(uint32_t stream, Services& services);

  Slots<FileStream, kMaxFileStreams> streams_;
};

}  // namespace hutch::agent
