#pragma once

#include <cstdint>
#include <string_view>

#include "wire/codec.h"
#include "wire/frame.h"

/// The payloads of the frames in frame.h, one struct a type. Times are milliseconds, sizes bytes.
namespace hutch::wire {

struct Hello {
  uint64_t orphan_ttl_ms = 0;  // without a host for this long the agent ends the sandbox
  uint64_t ends_in_ms = 0;     // lifetime that is left; 0 = no end
  template <class C>
  void fields(C& c) {
    c(orphan_ttl_ms, ends_in_ms);
  }
};

struct Welcome {
  uint32_t commands = 0;  // of earlier epochs; each is told of by `started`, or `failed`
  template <class C>
  void fields(C& c) {
    c(commands);
  }
};

struct Lifetime {
  uint64_t ends_in_ms = 0;
  template <class C>
  void fields(C& c) {
    c(ends_in_ms);
  }
};

struct Exec {
  static constexpr uint8_t kMergeOutput = 1;  // standard error goes to the same pipe as standard output
  static constexpr uint8_t kInput = 2;        // `input` frames follow; otherwise standard input is /dev/null
  static constexpr uint8_t kTerminal = 4;  // 0, 1 and 2 are a pseudo-terminal; with kInput and kMergeOutput
  static constexpr uint8_t kStore = 8;     // as if `relay` with `on` = 0 came first

  StringList argv;
  StringList env;
  std::string_view workdir;
  std::string_view user;        // NAME, UID, NAME:GROUP...; empty = root
  std::string_view log_path;    // empty = no log; made at the first byte of output, without following links
  uint64_t log_max_bytes = 0;   // output past this is not logged
  uint64_t logs_max_bytes = 0;  // nor past this of all commands together that the agent still holds
  uint32_t number = 0;          // the host's name for it, given back in Started
  uint64_t timeout_ms = 0;      // after this long the tree is ended as by EndTree with kGraceMs; 0 = never
  uint16_t rows = 0, columns = 0;  // kTerminal: its size
  uint8_t options = 0;
  template <class C>
  void fields(C& c) {
    c(argv, env, workdir, user, log_path, log_max_bytes, logs_max_bytes, number, timeout_ms, rows, columns,
      options);
  }
};

inline constexpr uint32_t kGraceMs = 2000;  // between SIGTERM and SIGKILL

struct Started {
  static constexpr uint8_t kInput = 1;       // it has standard input, or a terminal
  static constexpr uint8_t kInputEnded = 2;  // and that was ended
  static constexpr uint8_t kTerminal = 4;
  static constexpr uint8_t kKept =
      8;  // also after its end, until `forget`: the host had it stored, or left it running
  static constexpr uint8_t kRelayed = 16;  // its output is sent as it comes

  uint32_t pid =
      0;  // as seen inside the sandbox; 0 = not known yet, or its supervisor was killed before it said so
  uint64_t printed_bytes = 0;  // before the first `output` of this epoch
  uint32_t number = 0;         // of Exec
  uint64_t age_ms = 0;         // since it was asked for
  uint8_t state = 0;
  template <class C>
  void fields(C& c) {
    c(pid, printed_bytes, number, age_ms, state);
  }
};

/// While it is off, output is only stored: in the log, and of what does not go there the last 64 KiB. Once it
/// was off, the command is kept after its end until `forget`, and so is one that leaves processes running.
struct Relay {
  uint8_t on = 0;
  template <class C>
  void fields(C& c) {
    c(on);
  }
};

/// A place in what a command prints, both streams together: the bytes before it.
struct Position {
  uint64_t bytes = 0;
  template <class C>
  void fields(C& c) {
    c(bytes);
  }
};
using Watch = Position;

struct WindowSize {
  uint16_t rows = 0, columns = 0;
  template <class C>
  void fields(C& c) {
    c(rows, columns);
  }
};

/// What a command has printed, at most kDataChunk bytes from `from` on.
struct ReadOutput {
  uint32_t command = 0;  // its stream
  uint64_t from = 0;
  uint32_t max_bytes = 0;
  template <class C>
  void fields(C& c) {
    c(command, from, max_bytes);
  }
};

/// `bytes` begin at `first`, which is past what was asked for where that is not stored any more.
struct OutputPiece {
  uint64_t first = 0, printed_bytes = 0;
  std::string_view bytes;
  template <class C>
  void fields(C& c) {
    c(first, printed_bytes, bytes);
  }
};

struct EndTree {
  uint32_t grace_ms = 0;  // SIGTERM first and SIGKILL after this long; 0 = SIGKILL at once
  template <class C>
  void fields(C& c) {
    c(grace_ms);
  }
};

/// To the main process's group, in a terminal to its foreground; when the main process has ended, to all that
/// it left running.
struct Signal {
  uint32_t number = 0;
  template <class C>
  void fields(C& c) {
    c(number);
  }
};

struct Credit {
  uint32_t bytes = 0;
  template <class C>
  void fields(C& c) {
    c(bytes);
  }
};

struct Exited {
  static constexpr uint8_t kSupervisorLost = 1;  // something inside killed it; its strays were ended
  static constexpr uint8_t kTimedOut = 2;        // ended because of its timeout

  int32_t exit_code = -1;     // -1 when a signal ended it
  uint32_t signal = 0;        // 0 when it exited
  uint32_t left_running = 0;  // processes of the tree that live on
  uint64_t cpu_us = 0;        // user and system time of the main process and its reaped children
  uint64_t max_rss_kib = 0;
  uint64_t ran_ms = 0;  // from the start to the end of the main process
  uint64_t log_bytes = 0, printed_bytes = 0;
  uint8_t flags = 0;
  template <class C>
  void fields(C& c) {
    c(exit_code, signal, left_running, cpu_us, max_rss_kib, ran_ms, log_bytes, printed_bytes, flags);
  }
};

struct ReadFile {
  std::string_view path;  // absolute; resolved beneath the sandbox's root by the kernel
  uint64_t offset = 0;
  uint64_t max_bytes = 0;  // 0 = to the end
  template <class C>
  void fields(C& c) {
    c(path, offset, max_bytes);
  }
};

/// What identifies one state of a file: it changes when the content does.
struct FileState {
  uint64_t inode = 0, size = 0;
  int64_t mtime_ns = 0, ctime_ns = 0;
  template <class C>
  void fields(C& c) {
    c(inode, size, mtime_ns, ctime_ns);
  }
  bool operator==(const FileState&) const = default;
};

struct FileInfo {
  FileState state;
  uint32_t mode = 0;    // type and permission bits, as in stat(2)
  uint8_t created = 0;  // write_file: there was none before
  template <class C>
  void fields(C& c) {
    state.fields(c);
    c(mode, created);
  }
};

struct WriteFile {
  static constexpr uint8_t kCreateNew = 1;   // fails with EEXIST when there is one
  static constexpr uint8_t kAppend = 2;      // adds to the end, not atomic
  static constexpr uint8_t kExecutable = 4;  // adds x wherever r is set
  static constexpr uint8_t kExpect = 8;      // fails with ESTALE unless the file is still in `expected` state
  static constexpr uint8_t kMakeParents = 16;

  std::string_view path;
  uint8_t options = 0;
  uint32_t mode = 0644;   // of a new file; an existing one keeps its own, and its owner
  std::string_view user;  // as in Exec; whose a new file is, and folders that are made
  FileState expected;
  template <class C>
  void fields(C& c) {
    c(path, options, mode, user);
    expected.fields(c);
  }
};

/// With the folders above it. One that is there, is root's and empty is given to the user, too.
struct MakeFolder {
  std::string_view path;
  std::string_view user;  // as in Exec
  template <class C>
  void fields(C& c) {
    c(path, user);
  }
};

struct ListFiles {
  std::string_view path;
  uint32_t depth = 1;
  template <class C>
  void fields(C& c) {
    c(path, depth);
  }
};

/// One record of a listing; records are packed into `data` frames and never split.
struct Entry {
  std::string_view path;    // relative to the listed folder
  std::string_view target;  // of a symbolic link
  uint32_t mode = 0;
  uint64_t size = 0;
  int64_t mtime_s = 0;
  template <class C>
  void fields(C& c) {
    c(path, target, mode, size, mtime_s);
  }
};

/// To 127.0.0.1 in the sandbox, or to ::1 when nobody listens there.
struct Connect {
  uint16_t port = 0;
  template <class C>
  void fields(C& c) {
    c(port);
  }
};

/// On 127.0.0.1 in the sandbox.
struct Listen {
  uint16_t port = 0;
  template <class C>
  void fields(C& c) {
    c(port);
  }
};

struct Accepted {
  uint32_t listener = 0;  // its stream
  template <class C>
  void fields(C& c) {
    c(listener);
  }
};

struct Failed {
  int32_t error = 0;      // errno
  std::string_view step;  // the call and its object, such as "chdir /nope"
  template <class C>
  void fields(C& c) {
    c(error, step);
  }
};

}  // namespace hutch::wire
