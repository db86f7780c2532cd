#include "sandbox/eval_output.h"

#include <algorithm>

#include "schema/json.h"
#include "schema/text.h"

namespace hutch::sandbox {

namespace {

constexpr char kMark = '\x1e';
constexpr size_t kMaxAnswer = 256 << 10;
constexpr size_t kMaxImages = 8;
constexpr size_t kMaxPath = 4095;

bool may_be_file(const std::string& path) {
  return path.starts_with('/') && path.size() <= kMaxPath && path.find('\0') == std::string::npos;
}

}  // namespace

EvalOutput::EvalOutput(std::string_view token, bool split, size_t output_limit, bool once)
    : mark_(kMark + std::string(token)),
      split_(split),
      once_(once),
      streams_{Part(output_limit), Part(output_limit)} {}

void EvalOutput::add(int which, std::string_view bytes) {
  Part& part = streams_[which == 1 ? 0 : 1];
  if (!complete())
    add_to(part, bytes);
  else if (once_)
    part.kept.append(bytes);  // otherwise it is of the next call
  seen_ += bytes.size();
}

void EvalOutput::add_to(Part& part, std::string_view bytes) {
  if (part.done) {  // and the other stream is not: the call goes on
    part.kept.append(bytes);
    return;
  }
  const size_t before = part.held.size();
  part.held += bytes;
  if (!part.answering) {
    const size_t start = part.held.find(mark_);
    // What could be the beginning of the mark waits for the rest of it.
    size_t printed = start;
    if (start == std::string::npos) {
      printed = part.held.rfind(kMark);
      if (printed == std::string::npos ||
          mark_.compare(0, part.held.size() - printed, part.held, printed, std::string::npos) != 0)
        printed = part.held.size();
    }
    part.kept.append(std::string_view(part.held).substr(0, printed));
    if (start == std::string::npos) {
      part.held.erase(0, printed);
      return;
    }
    part.answering = true;
    part.answer = part.searched = start + mark_.size();
  }
  const size_t start = part.answer;
  const size_t end = part.held.find(kMark, part.searched);
  part.searched = part.held.size();
  if (end == std::string::npos && part.held.size() - start < kMaxAnswer) return;
  const size_t rest = end == std::string::npos ? part.held.size() : end + 1;
  part.done = true;
  if (&part == &streams_[0] && end != std::string::npos && end - start <= kMaxAnswer)
    understand(std::string_view(part.held).substr(start, end - start));
  if (complete()) end_ = seen_ + rest - before;
  if (!complete() || once_) part.kept.append(std::string_view(part.held).substr(rest));
  part.held.clear();
}

/// It comes out of the sandbox: nothing in it is taken for granted.
void EvalOutput::understand(std::string_view text) {
  const json fields = json::parse(text, nullptr, false);
  if (!fields.is_object()) return;
  Answer answer;
  if (const auto code = fields.find("exit_code"); code != fields.end() && code->is_number_integer())
    answer.exit_code = static_cast<int>(code->get<int64_t>() & 0xff);
  if (const auto value = fields.find("value"); value != fields.end() && value->is_string())
    answer.value = schema::valid_utf8(value->get_ref<const std::string&>());
  if (const auto images = fields.find("images"); images != fields.end() && images->is_array())
    for (const auto& path : *images)
      if (path.is_string() && answer.images.size() < kMaxImages &&
          may_be_file(path.get_ref<const std::string&>()))
        answer.images.push_back(path.get<std::string>());
  if (const auto ended = fields.find("ended"); ended != fields.end() && ended->is_boolean())
    answer.ended = ended->get<bool>();
  answer_ = std::move(answer);
}

void EvalOutput::give_up() {
  for (Part& part : streams_) {
    if (!part.done && !part.answering) part.kept.append(part.held);
    part.held.clear();
  }
}

std::string EvalOutput::last_line() const {
  return out().total_bytes() >= err().total_bytes() ? out().last_line() : err().last_line();
}

}  // namespace hutch::sandbox
