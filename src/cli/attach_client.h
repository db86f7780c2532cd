#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/unique_fd.h"
#include "sandbox/attach_frames.h"

namespace hutch::cli {

/// The signals that are to reach an AttachClient and not end the process: blocked from here on.
UniqueFd watch_signals(bool terminal);
/// Of the terminal on standard input.
sandbox::attach::Size terminal_size();

/// `hutch exec` once its command runs: passes on what the person types and what the command prints. One
/// thread, which waits in poll() only, so that no slow end holds up the others.
class AttachClient {
 public:
  /// `received`: what came on the connection behind the answer.
  AttachClient(UniqueFd server, std::string_view received, UniqueFd signals, bool input, bool terminal);

  struct End {
    int exit_code = 0;
    std::string message;  // for the person, when hutch has something to say
  };
  /// Until the command's end, the server's, or our own.
  End run();

 private:
  /// Where output goes, without waiting there and without making it non-blocking for others.
  struct Target {
    int fd = -1;
    UniqueFd own;  // a description of our own, where one can be had
    bool never_waits = false;
    explicit Target(int number);
  };

  void wait();
  void take_signal();
  void take_input();
  void take_frames();
  void receive();
  void take(const sandbox::attach::Frame& frame);
  void write_output();
  void send_more();
  void send(sandbox::attach::Type type, std::string_view payload = {});
  void end(int exit_code, std::string message = {});

  const UniqueFd server_, signals_;
  bool reads_input_;
  const bool terminal_;
  Target outputs_[2];
  sandbox::attach::Reader frames_;
  std::string to_server_;
  size_t window_ = sandbox::attach::kInputWindow;  // input that the server still takes
  std::string out_;                                // not printed yet: nothing more is received meanwhile
  Target* out_target_ = nullptr;
  bool server_gone_ = false;
  std::optional<End> end_;
};

}  // namespace hutch::cli
