#include <algorithm>

#include "agent/agent.h"
#include "agent/sys.h"

namespace hutch::agent {
namespace {

/// False, with the stream's request refused, when the payload is not exactly one Message.
template <class Message>
bool decode_request(const Frame& frame, Message& message, Channel& channel) {
  if (wire::decode(frame.payload, message)) return true;
  channel.send_failed(frame.header.stream, EBADMSG, "decode the request");
  return false;
}

}  // namespace

void Agent::on_frame(const Frame& frame) {
  if (frame.header.type == wire::Type::hello) return on_hello(frame);
  if (!host_present_ || frame.header.epoch != channel_.epoch()) return;
  wire::Lifetime lifetime;
  switch (frame.header.type) {
    case wire::Type::ping:
      return channel_.send(wire::Type::pong, frame.header.stream);
    case wire::Type::lifetime:
      if (wire::decode(frame.payload, lifetime)) set_lifetime(lifetime.ends_in_ms);
      return;
    default:
      break;
  }
  const uint32_t stream = frame.header.stream;
  if (stream == 0) return;
  if (Command* command = commands_.find(stream)) return on_command_frame(frame, *command);
  if (files_.has(stream)) return files_.on_frame(frame, services_);
  if (network_.has(stream)) return network_.on_frame(frame, services_);
  on_request(frame);
}

void Agent::on_request(const Frame& frame) {
  const uint32_t stream = frame.header.stream;
  wire::Exec exec;
  wire::ReadFile read;
  wire::WriteFile write;
  wire::MakeFolder folder;
  wire::ListFiles list;
  wire::ReadOutput output;
  wire::Connect connect;
  wire::Listen listen;
  switch (frame.header.type) {
    case wire::Type::exec:
      if (decode_request(frame, exec, channel_)) commands_.start(exec, stream, services_);
      return;
    case wire::Type::read_file:
      if (decode_request(frame, read, channel_)) files_.read(read, stream, services_);
      return;
    case wire::Type::write_file:
      if (decode_request(frame, write, channel_)) files_.write(write, stream, services_);
      return;
    case wire::Type::make_folder:
      if (decode_request(frame, folder, channel_)) files_.make_folder(folder, stream, services_);
      return;
    case wire::Type::list_files:
      if (decode_request(frame, list, channel_)) files_.list(list, stream, services_);
      return;
    case wire::Type::read_output:
      if (decode_request(frame, output, channel_)) read_output(output, stream);
      return;
    case wire::Type::connect:
      if (decode_request(frame, connect, channel_)) network_.connect(connect, stream, services_);
      return;
    case wire::Type::listen:
      if (decode_request(frame, listen, channel_)) network_.listen(listen, stream, services_);
      return;
    default:
      return;  // for a stream that has ended meanwhile
  }
}

void Agent::read_output(const wire::ReadOutput& request, uint32_t stream) {
  Command* command = commands_.find(request.command);
  if (command == nullptr) return channel_.send_failed(stream, ESRCH, "read_output");
  command->read_output(request, stream, services_);
}

void Agent::on_command_frame(const Frame& frame, Command& command) {
  wire::EndTree end;
  wire::Signal signal;
  wire::Credit credit;
  wire::Relay relay;
  wire::Watch watch;
  wire::WindowSize size;
  switch (frame.header.type) {
    case wire::Type::input:
      return command.add_input(frame.payload, services_);
    case wire::Type::input_end:
      return command.end_input(services_);
    case wire::Type::end_tree:
      if (wire::decode(frame.payload, end)) command.end_tree(end.grace_ms);
      return;
    case wire::Type::signal:
      if (wire::decode(frame.payload, signal)) command.signal(signal.number);
      return;
    case wire::Type::credit:
      if (wire::decode(frame.payload, credit)) command.add_credit(credit.bytes, services_);
      return;
    case wire::Type::relay:
      if (wire::decode(frame.payload, relay)) command.set_relay(relay.on != 0, services_);
      return;
    case wire::Type::watch:
      if (wire::decode(frame.payload, watch)) command.watch(watch.bytes, services_);
      return;
    case wire::Type::resize:
      if (wire::decode(frame.payload, size)) command.resize(size);
      return;
    case wire::Type::forget:
      return command.forget(services_);
    default:
      return;  // a request on a stream that is in use
  }
}

void Agent::on_hello(const Frame& frame) {
  wire::Hello hello;
  if (!wire::decode(frame.payload, hello)) return;
  channel_.set_epoch(frame.header.epoch);
  channel_.mute(false);
  if (frame.header.version != wire::kVersion) {
    channel_.send(wire::Type::welcome, 0, wire::Welcome{});  // with our version
    channel_.mute(true);
    return on_host_lost();
  }
  files_.drop_all();
  network_.drop_all();
  host_present_ = true;
  orphan_at_ms_ = 0;
  orphan_ttl_ms_ = std::min(hello.orphan_ttl_ms, kForeverMs);
  set_lifetime(hello.ends_in_ms);
  channel_.send(wire::Type::welcome, 0, wire::Welcome{commands_.count()});
  commands_.reattach(services_);
  commands_.want_spare();
}

void Agent::set_lifetime(uint64_t ends_in_ms) {
  ends_at_ms_ = ends_in_ms == 0 || ends_in_ms >= kForeverMs ? 0 : now_ms() + ends_in_ms;
}

}  // namespace hutch::agent
