#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "sandbox/manager.h"

namespace hutch::sandbox {

/// A person's `hutch exec`, as it comes in on the control socket.
struct AttachRequest {
  std::string sandbox_id;
  std::vector<std::string> argv;
  std::string workdir;
  std::map<std::string, std::string> env;
  bool input = false, terminal = false;
  int64_t rows = 24, columns = 80;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "Id or name of the sandbox.", {.min = 1});
    v.required("argv", argv, "Program and arguments.", {.min = 1});
    v.optional("workdir", workdir, "Folder to start in; relative: below the sandbox's own.");
    v.optional("env", env, "Environment variables on top of the sandbox's.");
    v.optional("input", input, "Frames of input follow; otherwise standard input is /dev/null.");
    v.optional("terminal", terminal, "Runs in a pseudo-terminal, whose input follows.");
    v.optional("rows", rows, "Of the terminal.", {.min = 0, .max = 65535});
    v.optional("columns", columns, "Of the terminal.", {.min = 0, .max = 65535});
  }
};

class Attachment;

/// Those who are attached to the sandboxes of this server: each on threads of its own, since a client may be
/// as slow as it likes. Thread-safe.
class Attachments {
 public:
  static constexpr size_t kMax = 16;

  explicit Attachments(Manager& manager) : manager_(manager) {}
  /// Hangs up on everybody, and waits until their commands have ended.
  ~Attachments();
  Attachments(const Attachments&) = delete;
  Attachments& operator=(const Attachments&) = delete;

  /// Writes the line that answers the request: nullptr says that the command runs.
  using AnswerLine = std::function<std::string(const Error*)>;
  /// From here on the connection is the command's: answers the request, passes frames on until the command's
  /// end, and ends the command like a terminal that is closed when the client goes first. Does not wait.
  void begin(UniqueFd socket, std::string_view received, AttachRequest request, AnswerLine line);

 private:
  void run(std::shared_ptr<Attachment> attachment);

  Manager& manager_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::shared_ptr<Attachment>> live_;
};

}  // namespace hutch::sandbox
