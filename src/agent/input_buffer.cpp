#include "agent/input_buffer.h"

#include <sys/mman.h>

#include <utility>

#include "agent/event_loop.h"
#include "agent/sys.h"

namespace hutch::agent {
namespace {

// Untouched pages of this array take no memory, and used ones are given back in close().
alignas(4096) char rings[kMaxCommands][wire::kInputWindow];

}  // namespace

void InputBuffer::open(size_t slot) {
  *this = InputBuffer();
  ring_.open(rings[slot]);
  (void)madvise(rings[slot], wire::kInputWindow, MADV_DONTFORK);
}

void InputBuffer::connect(UniqueFd pipe) {
  if (!ring_.is_open() || connected_) return;
  connected_ = true;
  pipe_ = std::move(pipe);
  pump();
}

void InputBuffer::close() {
  ring_.close();
  *this = InputBuffer();
}

void InputBuffer::add(std::string_view bytes) {
  if (!ring_.is_open() || ended_) return;
  if (connected_ && !pipe_) return consume(bytes.size());  // nobody reads: the host need not wait for it
  if (bytes.size() > ring_.room()) {
    connected_ = true;
    pipe_.reset();
    return;
  }
  ring_.add(bytes);
  pump();
}

void InputBuffer::pump() {
  while (pipe_ && !ring_.empty()) {
    const std::string_view piece = ring_.front();
    const ssize_t written = retry_eintr([&] { return write(pipe_.get(), piece.data(), piece.size()); });
    if (written < 0 && errno == EAGAIN) return;
    if (written < 0) pipe_.reset();  // EPIPE: the command closed its end
    const size_t gone = written < 0 ? ring_.size() : static_cast<size_t>(written);
    ring_.drop(gone);
    consume(gone);
  }
  if (ended_) pipe_.reset();
}

void InputBuffer::consume(size_t bytes) {
  credit_ += static_cast<uint32_t>(bytes);
}

uint32_t InputBuffer::take_credit() {
  if (ended_ || (credit_ < wire::kInputWindow / 4 && !ring_.empty())) return 0;
  return std::exchange(credit_, 0);
}

void InputBuffer::restart_credit() {
  if (ring_.is_open() && !ended_) credit_ = static_cast<uint32_t>(ring_.room());
}

}  // namespace hutch::agent
