#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/output.h"

namespace hutch::sandbox {

/// Tells what code prints from the answer of the interpreter's driver, which stands in the same stream
/// between two marks with the token of the call (drivers/python.py says how). What is not the answer is kept
/// bounded.
class EvalOutput {
 public:
  struct Answer {
    int exit_code = 0;
    std::optional<std::string> value;  // of the last expression, as the language shows it
    std::vector<std::string> images;   // PNG files in the sandbox: untrusted names
    bool ended = false;                // the code has ended its process, which is going
  };

  /// `split`: the two streams come apart, and each has its mark. `once`: the process ends after its answer,
  /// and what it prints on its way out belongs to the call.
  EvalOutput(std::string_view token, bool split, size_t output_limit, bool once = false);

  void add(int which, std::string_view bytes);
  /// The call is over: its answer has come, and all that was printed before it.
  bool complete() const { return streams_[0].done && (streams_[1].done || !split_); }
  /// Bytes of both streams up to there.
  uint64_t end() const { return end_; }
  const std::optional<Answer>& answer() const { return answer_; }
  /// No answer will come: what was held back as its possible beginning was printed.
  void give_up();

  const BoundedOutput& out() const { return streams_[0].kept; }
  const BoundedOutput& err() const { return streams_[1].kept; }
  std::string last_line() const;

 private:
  struct Part {
    explicit Part(size_t limit) : kept(limit) {}
    BoundedOutput kept;
    std::string held;  // may be the beginning of the mark, or is the answer as far as it has come
    size_t answer = 0, searched = 0;  // in `held`: where the answer begins, and what has no end of it
    bool answering = false, done = false;
  };
  void add_to(Part& part, std::string_view bytes);
  void understand(std::string_view text);

  const std::string mark_;
  const bool split_, once_;
  Part streams_[2];
  std::optional<Answer> answer_;
  uint64_t seen_ = 0, end_ = 0;
};

}  // namespace hutch::sandbox
