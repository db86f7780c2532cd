"""A small client of the agent's wire protocol (src/wire), for tests."""

import errno
import os
import select
import struct
import time
from types import SimpleNamespace

VERSION = 4
MAX_PAYLOAD = 256 * 1024
DATA_CHUNK = 64 * 1024
WINDOW = 512 * 1024
INPUT_WINDOW = 64 * 1024
HEADER = struct.Struct("<IIIBBBB")

TYPES = dict(hello=1, ping=2, exec=3, input=4, input_end=5, end_tree=6, signal=7, credit=8, read_file=9,
             write_file=10, list_files=11, commit=12, cancel=13, lifetime=14, relay=15, watch=16, resize=17, forget=18,
             read_output=19, make_folder=20, connect=21, listen=22, welcome=64, pong=65, started=66, output=67, exited=68, tree_gone=69, ready=70, file_info=71,
             data=72, done=73, failed=74, relaying=75, printed=76, output_piece=77, accepted=78)
NAMES = {number: name for name, number in TYPES.items()}

WHOLE = b"\0"  # behind every payload to the agent
FILL = b"\xff" * (MAX_PAYLOAD + HEADER.size)
MERGE_OUTPUT, INPUT, TERMINAL, STORE = 1, 2, 4, 8
CREATE_NEW, APPEND, EXECUTABLE, EXPECT, MAKE_PARENTS = 1, 2, 4, 8, 16
SUPERVISOR_LOST, TIMED_OUT = 1, 2
HAS_INPUT, INPUT_ENDED, HAS_TERMINAL, KEPT, RELAYED = 1, 2, 4, 8, 16
TAIL = 64 * 1024


def text(value):
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(raw)) + raw


def strings(values):
    return text(b"".join((v.encode() if isinstance(v, str) else v) + b"\0" for v in values))


class Reader:
    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, code):
        (value,) = struct.unpack_from("<" + code, self.raw, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self):
        size = self.take("I")
        value = self.raw[self.at:self.at + size]
        self.at += size
        return value

    def more(self):
        return self.at < len(self.raw)


def decode(name, raw):
    r = Reader(raw)
    if name == "welcome":
        return SimpleNamespace(commands=r.take("I"))
    if name == "started":
        return SimpleNamespace(pid=r.take("I"), printed_bytes=r.take("Q"), number=r.take("I"), age_ms=r.take("Q"),
                               state=r.take("B"))
    if name == "exited":
        return SimpleNamespace(exit_code=r.take("i"), signal=r.take("I"), left_running=r.take("I"),
                               cpu_us=r.take("Q"), max_rss_kib=r.take("Q"), ran_ms=r.take("Q"),
                               log_bytes=r.take("Q"), printed_bytes=r.take("Q"), flags=r.take("B"))
    if name == "failed":
        return SimpleNamespace(error=r.take("i"), step=r.text().decode(errors="replace"))
    if name == "credit":
        return SimpleNamespace(bytes=r.take("I"))
    if name in ("relaying", "printed"):
        return r.take("Q")
    if name == "output_piece":
        return SimpleNamespace(first=r.take("Q"), printed_bytes=r.take("Q"), bytes=r.text())
    if name == "file_info":
        return SimpleNamespace(state=tuple(r.take(c) for c in "QQqq"), mode=r.take("I"), created=r.take("B"))
    return raw


def entries(raw):
    r = Reader(raw)
    while r.more():
        yield SimpleNamespace(path=r.text(), target=r.text(), mode=r.take("I"), size=r.take("Q"),
                              mtime=r.take("q"))


class Timeout(Exception):
    pass


class Client:
    """One host. `fd_in` is what the agent reads, `fd_out` what it writes."""

    def __init__(self, to_agent, from_agent, epoch=1):
        self.to_agent, self.from_agent, self.epoch = to_agent, from_agent, epoch
        self.pending = b""
        # The host before may have read half a frame: frames begin at the welcome of our own epoch.
        self.synchronised = False
        self.next_stream = 1
        self.auto_credit = True
        self.queues = {}

    def raw(self, data, timeout=20):
        end = time.monotonic() + timeout
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.to_agent, view):]
            except BlockingIOError:
                # The agent may be waiting for us to read.
                select.select([self.from_agent], [self.to_agent], [], 1)
                self.pump()
                if time.monotonic() > end:
                    raise Timeout("the agent does not read")

    def send(self, name, stream=0, payload=b"", flags=0, epoch=None):
        epoch = self.epoch if epoch is None else epoch
        if payload:
            payload += WHOLE
        self.raw(HEADER.pack(len(payload), stream, epoch, TYPES[name], flags, VERSION, 0) + payload)

    def pump(self):
        """Reads what is there and sorts the frames by stream."""
        while True:
            try:
                data = os.read(self.from_agent, 1 << 20)
            except BlockingIOError:
                break
            if not data:
                break
            self.pending += data
        if not self.synchronised:
            self.find_welcome()
        while self.synchronised and len(self.pending) >= HEADER.size:
            size, stream, epoch, kind, flags, version, _ = HEADER.unpack_from(self.pending)
            assert version == VERSION and size <= MAX_PAYLOAD, (version, size)
            if len(self.pending) < HEADER.size + size:
                break
            payload = self.pending[HEADER.size:HEADER.size + size]
            self.pending = self.pending[HEADER.size + size:]
            if epoch != self.epoch:
                continue
            name = NAMES[kind]
            if self.auto_credit and name in ("output", "data") and payload:
                self.send("credit", stream, struct.pack("<I", len(payload)))
            self.queues.setdefault(stream, []).append((name, flags, decode(name, payload)))

    def find_welcome(self):
        header = HEADER.pack(4, 0, self.epoch, TYPES["welcome"], 0, VERSION, 0)
        at = self.pending.find(header)
        self.synchronised = at >= 0
        self.pending = self.pending[at if at >= 0 else max(0, len(self.pending) - len(header) + 1):]

    def receive(self, stream=0, timeout=20):
        end = time.monotonic() + timeout
        while not self.queues.get(stream):
            left = end - time.monotonic()
            if left <= 0:
                raise Timeout(f"nothing on stream {stream}; others: {list(self.queues)}")
            select.select([self.from_agent], [], [], left)
            self.pump()
        return self.queues[stream].pop(0)

    def expect(self, name, stream=0, timeout=20):
        got, _, message = self.receive(stream, timeout)
        while got == "credit" != name:
            got, _, message = self.receive(stream, timeout)
        assert got == name, f"{got} {message} instead of {name}"
        return message

    def stream(self):
        self.next_stream += 1
        return self.next_stream

    def hello(self, orphan_ttl_ms=600_000, ends_in_ms=0, takeover=False):
        if takeover:
            self.raw(FILL)
        self.send("hello", 0, struct.pack("<QQ", orphan_ttl_ms, ends_in_ms))
        return self.expect("welcome", timeout=5)

    def ping(self, timeout=20):
        stream = self.stream()
        begin = time.monotonic()
        self.send("ping", stream)
        self.expect("pong", stream, timeout)
        return time.monotonic() - begin

    def start(self, argv, env=None, workdir="/", user="", log="", log_max=1 << 30, logs_max=1 << 40, number=0, timeout_ms=0,
              size=(24, 80), options=0):
        if isinstance(argv, str):
            argv = ["/bin/sh", "-c", argv]
        env = env if env is not None else ["PATH=/usr/bin:/bin"]
        stream = self.stream()
        self.send("exec", stream, strings(argv) + strings(env) + text(workdir) + text(user) + text(log) +
                  struct.pack("<QQIQHHB", log_max, logs_max, number, timeout_ms, *size, options))
        return stream

    def collect(self, stream, timeout=20):
        """Output and Exited of a started command."""
        out, err, pid = [], [], None
        while True:
            name, flags, message = self.receive(stream, timeout)
            if name == "started":
                pid = message.pid
            elif name == "output":
                (err if flags else out).append(message)
            elif name == "exited":
                message.out, message.err, message.pid = b"".join(out), b"".join(err), pid
                return message
            elif name == "failed":
                raise OSError(message.error, message.step)
            else:
                assert name == "credit", name

    def run(self, argv, **options):
        """Runs to the end and ends what is left over."""
        stream = self.start(argv, **options)
        result = self.collect(stream)
        if result.left_running:
            self.send("end_tree", stream, struct.pack("<I", 0))
        self.expect("tree_gone", stream)
        if result.left_running:
            self.forget(stream)
        return result

    def relay(self, stream, on):
        self.send("relay", stream, struct.pack("<B", on))

    def forget(self, stream):
        self.send("forget", stream)

    def read_output(self, command, first=0, max_bytes=DATA_CHUNK):
        stream = self.stream()
        self.send("read_output", stream, struct.pack("<IQI", command, first, max_bytes))
        name, _, message = self.receive(stream)
        if name == "failed":
            raise OSError(message.error, message.step)
        return message

    def read_all_output(self, command, first=0):
        parts = []
        while True:
            piece = self.read_output(command, first)
            if not piece.bytes:
                return b"".join(parts)
            parts.append(piece.bytes)
            first = piece.first + len(piece.bytes)

    def wait_for_output(self, command, more_than):
        self.send("watch", command, struct.pack("<Q", more_than))
        return self.expect("printed", command)

    def end_tree(self, stream, grace_ms=0):
        self.send("end_tree", stream, struct.pack("<I", grace_ms))

    def read_file(self, path, offset=0, max_bytes=0):
        stream = self.stream()
        self.send("read_file", stream, text(path) + struct.pack("<QQ", offset, max_bytes))
        return self.collect_data(stream)

    def collect_data(self, stream, timeout=60):
        chunks, info = [], None
        while True:
            name, _, message = self.receive(stream, timeout)
            if name == "file_info":
                info = message
            elif name == "data":
                chunks.append(message)
            elif name == "failed":
                raise OSError(message.error, message.step)
            else:
                assert name == "done", name
                return info, b"".join(chunks)

    def begin_write(self, path, options=0, mode=0o644, user="", expected=(0, 0, 0, 0)):
        stream = self.stream()
        self.send("write_file", stream, text(path) + struct.pack("<BI", options, mode) + text(user) +
                  struct.pack("<QQqq", *expected))
        name, _, message = self.receive(stream)
        if name == "failed":
            raise OSError(message.error, message.step)
        assert name == "ready", name
        return stream

    def write_file(self, path, data, **options):
        stream = self.begin_write(path, **options)
        for at in range(0, len(data), DATA_CHUNK):
            self.send("data", stream, data[at:at + DATA_CHUNK])
        self.send("commit", stream)
        while True:
            name, _, message = self.receive(stream)
            if name == "failed":
                raise OSError(message.error, message.step)
            if name == "file_info":
                return message
            assert name == "credit", name

    def make_folder(self, path, user=""):
        stream = self.stream()
        self.send("make_folder", stream, text(path) + text(user))
        self.collect_data(stream)

    def list_files(self, path, depth=1):
        stream = self.stream()
        self.send("list_files", stream, text(path) + struct.pack("<I", depth))
        return list(entries(self.collect_data(stream)[1]))


def error_name(number):
    return errno.errorcode.get(number, str(number))
