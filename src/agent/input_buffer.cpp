#include "agent/input_buffer.h"

#include <sys/mman.h>

#include <algorithm>

#include "agent/event_loop.h"
#include "agent/sys.h"
#include "wire/frame.h"

namespace hutch::agent {
namespace {

// Untouched pages of this array take no memory, and used ones are given back in close().
alignas(4096) char rings[kMaxCommands][wire::kInputWindow];

}  // namespace

void InputBuffer::open(size_t slot) {
  *this = InputBuffer();
  ring_ = rings[slot];
  (void)madvise(ring_, wire::kInputWindow, MADV_DONTFORK);
}

void InputBuffer::connect(UniqueFd pipe) {
  if (ring_ == nullptr || connected_) return;
  connected_ = true;
  pipe_ = std::move(pipe);
  pump();
}

void InputBuffer::close() {
  if (touched_) (void)madvise(ring_, wire::kInputWindow, MADV_DONTNEED);
  *this = InputBuffer();
}

void InputBuffer::add(std::string_view bytes) {
  if (ring_ == nullptr || ended_) return;
  if (connected_ && !pipe_) return consume(bytes.size());  // nobody reads: the host need not wait for it
  if (bytes.size() > wire::kInputWindow - count_) {
    connected_ = true;
    pipe_.reset();
    return;
  }
  touched_ = true;
  for (size_t at = (first_ + count_) % wire::kInputWindow; !bytes.empty(); at = 0) {
    const size_t piece = bytes.copy(ring_ + at, wire::kInputWindow - at);
    bytes.remove_prefix(piece);
    count_ += piece;
  }
  pump();
}

void InputBuffer::pump() {
  while (pipe_ && count_ > 0) {
    const size_t piece = std::min(count_, wire::kInputWindow - first_);
    const ssize_t written = retry_eintr([&] { return write(pipe_.get(), ring_ + first_, piece); });
    if (written < 0 && errno == EAGAIN) return;
    if (written < 0) pipe_.reset();  // EPIPE: the command closed its end
    const size_t gone = written < 0 ? count_ : static_cast<size_t>(written);
    first_ = (first_ + gone) % wire::kInputWindow;
    count_ -= gone;
    consume(gone);
  }
  if (ended_) pipe_.reset();
}

void InputBuffer::consume(size_t bytes) {
  credit_ += static_cast<uint32_t>(bytes);
}

uint32_t InputBuffer::take_credit() {
  if (ended_ || (credit_ < wire::kInputWindow / 4 && count_ > 0)) return 0;
  return std::exchange(credit_, 0);
}

void InputBuffer::restart_credit() {
  if (ring_ != nullptr && !ended_) credit_ = static_cast<uint32_t>(wire::kInputWindow - count_);
}

}  // namespace hutch::agent
