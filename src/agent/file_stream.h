#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include "agent/command.h"
#include "agent/file_path.h"

namespace hutch::agent {

/// One stream of the file service: a file that is read, a file that is written, or a listing.
class FileStream {
 public:
  bool free() const { return kind_ == Kind::free; }
  bool live() const { return kind_ != Kind::free && kind_ != Kind::over; }
  uint32_t stream() const { return stream_; }
  pid_t worker() const { return worker_; }

  void open(uint32_t stream, size_t index) { stream_ = stream, index_ = index; }
  void start_read(const wire::ReadFile& request, Services& services);
  void start_write(const wire::WriteFile& request, Services& services);
  void start_list(const wire::ListFiles& request, Services& services);

  void on_frame(const Frame& frame, Services& services);
  /// The worker of a listing has sent something.
  void on_event(Services& services);
  void on_worker_reaped();
  void take_turn(Services& services);

  /// Ends the stream without a word: no temporary file and no worker stays.
  void drop();

 private:
  enum class Kind { free, read, write, append, list, over };  // over: the worker is still to be reaped

  void fail(int error, const char* step, std::string_view object, Services& services);
  void queue(Services& services) const { services.turns.add(kMaxCommands + index_); }
  wire::FileInfo info(const struct stat& status) const;

  void send_piece_of_file(Services& services);
  void send_piece_of_listing(Services& services);

  int open_for_append(const wire::WriteFile& request, bool exists);
  int make_temporary();
  void add_data(std::string_view bytes, Services& services);
  void commit(Services& services);
  int put_in_place();
  bool is_expected() const;

  Kind kind_ = Kind::free;
  uint32_t stream_ = 0;
  size_t index_ = 0;
  uint32_t credit_ = wire::kWindow;  // sending
  uint32_t consumed_ = 0;            // receiving: credit not yet given back
  UniqueFd fd_;

  uint64_t left_bytes_ = 0;  // read: up to max_bytes

  Place place_;  // write
  char temporary_[32] = {};
  uint8_t options_ = 0;
  bool created_ = false;
  mode_t mode_ = 0;
  wire::FileState expected_;

  pid_t worker_ = -1;  // list
  bool ready_ = false;
};

wire::FileState state_of(const struct stat& status);
/// "is a FIFO" and so on; nullptr for an ordinary file.
const char* kind_problem(mode_t mode);

}  // namespace hutch::agent
