"""A small MCP client over stdio for tests: both eras, side-by-side calls, cancellation, progress.

    with Client(["build/src/hutch", "mcp"]) as c:
        print(c.call_tool("sandbox_exec", {"command": "id"})["content"][0]["text"])

Every wait has a deadline and raises Timeout with what the server wrote to stderr. With a record folder
(argument or $HUTCHTEST_RECORD_DIR) each message goes to one JSONL file there, both ways; tests/clients/schema_check.mjs
validates those files.
"""
import itertools
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time

LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
REVISIONS = LEGACY + (MODERN,)
META = "io.modelcontextprotocol/"
_serial = itertools.count(1)


class Timeout(Exception):
    """The server did not do in time what was waited for."""


class Closed(Exception):
    """The server closed stdout before it answered."""


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.code = error.get("code")
        self.message = error.get("message")
        self.data = error.get("data")


class Call:
    """One request that is under way."""

    def __init__(self, client, request_id, method):
        self.client, self.id, self.method = client, request_id, method
        self.progress = queue.Queue()  # params of each notifications/progress
        self._done = threading.Event()
        self._response = None

    def _finish(self, response):
        self._response = response
        self._done.set()

    @property
    def done(self):
        return self._done.is_set()

    def response(self, timeout=60):
        """The whole answer, result or error."""
        if not self._done.wait(timeout):
            raise Timeout(f"no answer to {self.method} (id {self.id!r}) in {timeout} s\n{self.client.stderr()}")
        if self._response is None:
            raise Closed(f"server ended without an answer to {self.method}\n{self.client.stderr()}")
        return self._response

    def result(self, timeout=60):
        response = self.response(timeout)
        if "error" in response:
            raise RpcError(response["error"])
        return response["result"]

    def cancel(self, reason="test"):
        self.client.notify("notifications/cancelled", {"requestId": self.id, "reason": reason})

    def answered_within(self, seconds):
        """True when an answer comes; for showing that none comes after a cancellation."""
        return self._done.wait(seconds) and self._response is not None


class Client:
    def __init__(self, command, *, revision="2025-11-25", env=None, cwd=None, record=None, handshake=True,
                 capabilities=None):
        """env replaces the environment when given. handshake=False sends nothing at the start."""
        self.command, self.revision = [str(c) for c in command], revision
        self.modern = revision not in LEGACY
        self.capabilities = capabilities or {}
        self._ids = itertools.count(0)  # from 0, as Claude Code counts
        self._calls, self._tokens = {}, {}
        self._lock, self._write_lock = threading.Lock(), threading.Lock()
        self._ended = False  # nothing more will be read
        self.unmatched = queue.Queue()  # messages that belong to no call: notifications, errors with id null
        self._stderr = tempfile.TemporaryFile()
        self._record = self._open_record(record or os.environ.get("HUTCHTEST_RECORD_DIR"))
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self._stderr, env=env, cwd=cwd)
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.server_info = None
        if handshake:
            try:
                self.server_info = self.handshake()
            except BaseException:
                self.close("SIGKILL")
                raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.returncode is None:
            status, _took = self.close()
            if kind is None and status != 0:
                raise AssertionError(f"server ended with status {status}\n{self.stderr()}")

    # -- protocol ---------------------------------------------------------------------------------------------

    def handshake(self):
        if self.modern:
            return self.request("server/discover")
        result = self.request("initialize", {"protocolVersion": self.revision, "capabilities": self.capabilities,
                                             "clientInfo": {"name": "hutch-tests", "version": "1"}})
        self.notify("notifications/initialized")
        return result

    def submit(self, method, params=None, *, progress=False, request_id=None):
        """Sends a request and returns at once."""
        call = Call(self, next(self._ids) if request_id is None else request_id, method)
        params = dict(params) if params is not None else None
        meta = dict((params or {}).get("_meta", {}))
        if progress:
            meta["progressToken"] = f"p{call.id}"
        if self.modern:
            meta = {META + "protocolVersion": self.revision, META + "clientCapabilities": self.capabilities,
                    META + "clientInfo": {"name": "hutch-tests", "version": "1"}, **meta}
        if meta:
            params = {**(params or {}), "_meta": meta}
        with self._lock:
            if self._ended:  # a dying server may still take what nobody reads
                call._finish(None)
                return call
            self._calls[self._key(call.id)] = call
            if progress:
                self._tokens[meta["progressToken"]] = call
        message = {"jsonrpc": "2.0", "id": call.id, "method": method}
        if params is not None:
            message["params"] = params
        self.send(message)
        return call

    def request(self, method, params=None, *, timeout=60, **options):
        return self.submit(method, params, **options).result(timeout)

    def notify(self, method, params=None):
        self.send({"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})})

    def list_tools(self):
        return self.request("tools/list")["tools"]

    def submit_tool(self, name, arguments=None, **options):
        params = {"name": name} if arguments is None else {"name": name, "arguments": arguments}
        return self.submit("tools/call", params, **options)

    def call_tool(self, name, arguments=None, *, timeout=120, **options):
        return self.submit_tool(name, arguments, **options).result(timeout)

    def ping(self, timeout=5):
        """A request that every era answers at once."""
        return self.request("server/discover" if self.modern else "ping", timeout=timeout)

    # -- transport --------------------------------------------------------------------------------------------

    def send(self, message):
        self._note("out", message)
        self.send_raw(json.dumps(message, ensure_ascii=False).encode() + b"\n")

    def send_raw(self, data):
        with self._write_lock:
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def stderr(self, limit=4000):
        # pread: the file position belongs to the server, which shares it.
        size = os.fstat(self._stderr.fileno()).st_size
        text = os.pread(self._stderr.fileno(), limit, max(0, size - limit)).decode(errors="replace")
        return f"stderr of {self.command[0]}: {text}" if text else ""

    def kill(self, signal_number):
        self.process.send_signal(signal_number)

    def wait(self, timeout=10):
        """Waits for the process' end and returns its exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Timeout(f"server {self.pid} still runs after {timeout} s\n{self.stderr()}") from None

    def close(self, how="eof", timeout=10):
        """Ends the server by "eof" or a signal's name. Returns (exit status, seconds that it took)."""
        start = time.monotonic()
        try:
            if how != "eof" and self.process.poll() is None:
                self.process.send_signal(getattr(signal, how))
            else:
                with self._write_lock:
                    self.process.stdin.close()
        except (BrokenPipeError, ProcessLookupError):
            pass  # already gone
        try:
            status = self.wait(timeout)
        except Timeout:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            try:
                self.process.stdin.close()
            except OSError:
                pass
        took = time.monotonic() - start
        self._reader.join(5)
        self.process.stdout.close()
        if self._record:
            self._record.close()
            self._record = None
        return status, took

    def _read(self):
        for line in self.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                message = {"not_json": line.decode(errors="replace")}
            self._note("in", message)
            self._dispatch(message)
        with self._lock:
            self._ended = True
            left = list(self._calls.values())
            self._calls.clear()
        for call in left:
            call._finish(None)
        self.unmatched.put(None)

    def _dispatch(self, message):
        if not isinstance(message, dict):
            self.unmatched.put(message)
            return
        if "method" not in message and "id" in message:
            with self._lock:
                call = self._calls.pop(self._key(message["id"]), None)
            if call:
                call._finish(message)
                return
        elif message.get("method") == "notifications/progress":
            with self._lock:
                call = self._tokens.get(message["params"].get("progressToken"))
            if call:
                call.progress.put(message["params"])
                return
        self.unmatched.put(message)

    @staticmethod
    def _key(request_id):
        return (type(request_id).__name__, json.dumps(request_id))  # 1 and "1" are different ids

    def _open_record(self, folder):
        if not folder:
            return None
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"py-{os.getpid()}-{next(_serial)}.jsonl")
        return open(path, "w", encoding="utf-8")

    def _note(self, direction, message):
        with self._lock:
            if self._record and not self._record.closed:
                self._record.write(json.dumps({"dir": direction, "message": message}) + "\n")
                self._record.flush()
