#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

/// The frames that travel between the host and the guest agent, over one duplex byte channel.
///
/// Both ends are on the same machine, so integers are in host byte order. They are mostly of the same build:
/// the version byte refuses a peer that speaks otherwise. Only the headers, and the sizes of `hello` and
/// `welcome`, are the same in all versions, so that a host that takes over the channel of an older agent
/// learns of it: that one answers `welcome` with its own version, and stays without a host.
///
/// A payload to the agent ends with one more byte, kWhole, that is not part of the message: what a host that
/// takes over fills up a cut-off frame with has another there, so that no half of a command line or of some
/// input is taken for the whole.
///
/// Everything that comes out of a sandbox is untrusted: lengths are checked
/// before use, and a frame that breaks a rule ends the channel (host side) or is ignored (agent side).
namespace hutch::wire {

inline constexpr uint8_t kVersion = 4;
inline constexpr uint32_t kMaxPayload = 256 * 1024;  // one exec request: argv, environment, working folder
inline constexpr uint32_t kMaxCommands =
    512;  // that an agent holds at once, ended ones that it keeps included
inline constexpr uint32_t kMaxConnections = 1024;    // that an agent holds at once
inline constexpr uint32_t kDataChunk = 64 * 1024;    // largest piece of a stream in one frame
inline constexpr uint32_t kWindow = 512 * 1024;      // bytes a sender may have under way on one stream
inline constexpr uint32_t kInputWindow = 64 * 1024;  // the same for `input` frames: what the agent buffers
inline constexpr uint32_t kConnectionWindow = 512 * 1024;  // and for connections, either way
inline constexpr uint32_t kAgentsStream = 1u << 31;        // set in the ids of streams that the agent opens

enum class Type : uint8_t {
  // host to agent
  hello = 1,    // Hello: a new epoch begins, frames of older ones are dropped
  ping,         // answered by pong with the same stream id
  exec,         // Exec: start a command on this stream
  input,        // bytes for the command's standard input
  input_end,    // end of standard input
  end_tree,     // EndTree: end every process of the stream's command
  signal,       // Signal: to the main process's group
  credit,       // Credit: the receiver has consumed this many bytes of the stream
  read_file,    // ReadFile: answered by file_info, data..., done
  write_file,   // WriteFile: answered by ready; then data..., commit; answered by file_info
  list_files,   // ListFiles: answered by data (packed Entry records)..., done
  commit,       // the written file takes its place
  cancel,       // the host wants nothing more of a file stream: answered by nothing
  lifetime,     // Lifetime: when the sandbox has to end by itself
  relay,        // Relay: whether a command's output is sent as it comes; on is answered by `relaying`
  watch,        // Watch: answered once by `printed`, when a command has printed more than that
  resize,       // WindowSize of a command's terminal
  forget,       // of a command that was kept after its end: the stream id is free again
  read_output,  // ReadOutput of a command: answered by OutputPiece
  make_folder,  // MakeFolder: answered by done
  connect,      // Connect: a TCP connection inside. Answered by ready; then input, input_end, cancel, credit
                // one way and data, done, failed, credit the other. It ends with failed, cancel, or when both
                // directions have
  listen,       // Listen: answered by ready; then each connection is told of by `accepted`, until cancel
  // agent to host
  welcome = 64,  // Welcome: answer to hello
  pong,
  started,       // Started: the command runs; or, to a new host, there is such a command
  output,        // bytes of standard output (flag 0) or standard error (flag 1)
  exited,        // Exited: the main process ended, its output is complete
  tree_gone,     // nothing of the command is left; the stream id is free again unless the command is kept
  ready,         // the file can be written; it is connected; it listens
  file_info,     // FileInfo
  data,          // bytes of a file or listing; also host to agent for write_file
  done,          // end of data; of make_folder: it is there
  failed,        // Failed: the request of this stream did not work; the stream id is free again
  relaying,      // Position: of the first `output` that follows
  printed,       // Position: how much the command has printed
  output_piece,  // OutputPiece; the stream id is free again
  accepted,      // Accepted, on a stream of the agent's: as after `ready` of connect
};

/// In front of every payload; 16 bytes, no padding.
struct Header {
  uint32_t payload_bytes = 0;
  uint32_t stream =
      0;               // unique among live ones, the host's choice but for `accepted`; 0 = the channel itself
  uint32_t epoch = 0;  // chosen at random by the host at each hello
  Type type{};
  uint8_t flags = 0;
  uint8_t version = kVersion;
  uint8_t reserved = 0;
};
static_assert(sizeof(Header) == 16);

inline constexpr char kWhole = 0;
/// What a host that takes over writes first, so that a frame which its predecessor could not finish comes to
/// an end: bytes that make no header, no length that fits, and no kWhole.
inline constexpr char kFill = '\xff';
inline constexpr size_t kFillBytes = sizeof(Header) + kMaxPayload;

/// Complete and sane as far as the header can tell.
inline bool valid(const Header& h) {
  return h.version == kVersion && h.payload_bytes <= kMaxPayload;
}

}  // namespace hutch::wire
