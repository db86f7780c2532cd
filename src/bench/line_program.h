#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/process.h"

namespace hutch::bench {

/// How a program is started. `env` is all of its environment ("NAME=value").
struct ServerCommand {
  std::vector<std::string> argv;
  std::vector<std::string> env;
};

/// A program that is spoken to in lines over pipes, by one thread. Throws Error(unavailable) when it has
/// ended, with the end of its stderr. The destructor ends it as hosts end servers: it closes its input and
/// waits, then kills.
class LineProgram {
 public:
  explicit LineProgram(const ServerCommand& command);
  ~LineProgram();
  LineProgram(const LineProgram&) = delete;
  LineProgram& operator=(const LineProgram&) = delete;

  pid_t pid() const noexcept { return process_.pid(); }
  Clock::time_point started() const noexcept { return started_; }
  void write(std::string_view line);
  /// Without its end; nothing at `deadline`.
  std::optional<std::string> next_line(Clock::time_point deadline);
  /// A line to it and the next one of it, which has a minute to come.
  std::string ask(std::string_view line);
  /// Throws, with the end of its stderr.
  [[noreturn]] void fail(Errc code, const std::string& what) const;

 private:
  bool read_more(Clock::time_point deadline);

  std::string name_;
  UniqueFd stderr_;
  UniqueFd to_, from_;
  Clock::time_point started_;
  Process process_;
  std::vector<char> chunk_ = std::vector<char>(64u << 10);  // what one read gets
  std::string buffer_;
  size_t scanned_ = 0;  // no end of line before this place
};

/// The last of what was written to a file, for errors.
std::string tail_of(const UniqueFd& file);

}  // namespace hutch::bench
