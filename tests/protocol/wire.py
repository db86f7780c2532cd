"""Lines to and from a server: no protocol knowledge, so that tests can send what no client would."""
import itertools
import json
import os
import queue
import subprocess
import tempfile
import threading

SERVER = os.environ["ECHO_SERVER"]
META = "io.modelcontextprotocol/"
MODERN = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {},
          META + "clientInfo": {"name": "wire", "version": "1"}}
TASKS = {**MODERN, META + "clientCapabilities": {"extensions": {META + "tasks": {}}}}
DEADLINE_S = 20
_serial = itertools.count(1)


def _recording():
    """Where messages go that tests/clients/schema_check.mjs is to see."""
    folder = os.environ.get("HUTCHTEST_RECORD_DIR")
    if not folder:
        return None
    os.makedirs(folder, exist_ok=True)
    return open(os.path.join(folder, f"wire-{os.getpid()}-{next(_serial)}.jsonl"), "w", encoding="utf-8")


class Wire:
    def __init__(self, *options, record=False):
        """record: only for tests in which the server is sent nothing but messages."""
        self._record = _recording() if record else None
        self._stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen([SERVER, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self._stderr)
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE_S)
        self.process.stdin.close()
        self.process.stdout.close()
        if self._record:
            self._record.close()

    def _note(self, direction, line):
        if self._record:
            self._record.write(json.dumps({"dir": direction, "message": json.loads(line)}) + "\n")

    def _read(self):
        for line in self.process.stdout:
            self._note("in", line)
            self._lines.put(line)
        self._lines.put(None)

    def raw(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, message):
        line = json.dumps(message).encode() + b"\n"
        self._note("out", line)
        self.raw(line)

    def request(self, request_id, method, params=None):
        message = {"jsonrpc": "2.0", "id": request_id, "method": method}
        self.send(message if params is None else {**message, "params": params})

    def notify(self, method, params=None):
        message = {"jsonrpc": "2.0", "method": method}
        self.send(message if params is None else {**message, "params": params})

    def call(self, request_id, tool, arguments=None, meta=None):
        params = {"name": tool, "_meta": {**MODERN, **(meta or {})}}
        if arguments is not None:
            params["arguments"] = arguments
        self.request(request_id, "tools/call", params)

    def next(self):
        """The next message; None when the server closed its output."""
        line = self._lines.get(timeout=DEADLINE_S)
        if line is None:
            return None
        assert line.endswith(b"\n"), line
        return json.loads(line.decode())

    def ask(self, request_id, method, params=None):
        self.request(request_id, method, params)
        return self.next()

    def initialize(self, version="2025-11-25", request_id="init", capabilities=None):
        answer = self.ask(request_id, "initialize", {"protocolVersion": version, "capabilities": capabilities or {},
                                                     "clientInfo": {"name": "wire", "version": "1"}})
        self.notify("notifications/initialized")
        return answer["result"]

    def end_input(self):
        self.process.stdin.close()

    def rest(self):
        """All further messages up to the end of the output."""
        out = []
        while (message := self.next()) is not None:
            out.append(message)
        return out

    def status(self):
        return self.process.wait(DEADLINE_S)

    def stderr(self):
        # pread: the file position belongs to the server, which shares it.
        return os.pread(self._stderr.fileno(), 1 << 16, 0).decode()


def text(answer):
    return answer["result"]["content"][0]["text"]


def code(answer):
    return answer["error"]["code"]
