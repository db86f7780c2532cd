"""Starts the agent as PID 1 of a new pid namespace, with two FIFOs as its channel."""

import os
import shutil
import signal
import subprocess
import tempfile

from wire import Client, Timeout

SPARE = "hutch-spare"
AGENT = os.path.abspath(os.environ["HUTCHTEST_AGENT"])
UNSHARE = ["unshare", "--fork", "--pid", "--mount-proc", "--net", "--kill-child"]


def possible():
    return subprocess.run(UNSHARE + ["true"], capture_output=True).returncode == 0


class StartError(Exception):
    pass


class Sandbox:
    def __init__(self, arguments=(), before="", hello=True):
        self.folder = tempfile.mkdtemp(prefix="agent-test-")
        os.chmod(self.folder, 0o755)
        self.fifo_in, self.fifo_out = (os.path.join(self.folder, name) for name in ("to-agent", "from-agent"))
        os.mkfifo(self.fifo_in, 0o600)
        os.mkfifo(self.fifo_out, 0o600)
        self.epoch = 0
        self.clients = []
        reading = os.open(self.fifo_in, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reading, True)
        writing = os.open(self.fifo_out, os.O_RDWR)
        self.stderr = os.path.join(self.folder, "stderr")
        command = UNSHARE + ["sh", "-c", before + ' exec "$0" "$@"', AGENT, *arguments]
        with open(self.stderr, "wb") as errors:
            self.process = subprocess.Popen(command, stdin=reading, stdout=writing, stderr=errors)
        os.close(reading)
        os.close(writing)
        try:
            self.client = self.connect(hello=hello)
        except Timeout:
            with open(self.stderr, errors="replace") as file:
                message = file.read()
            self.close()
            raise StartError(message) from None

    def connect(self, hello=True, takeover=False, **options):
        """Another host on the same channel."""
        self.epoch += 1
        to_agent = os.open(self.fifo_in, os.O_WRONLY | os.O_NONBLOCK)
        from_agent = os.open(self.fifo_out, os.O_RDONLY | os.O_NONBLOCK)
        client = Client(to_agent, from_agent, self.epoch)
        client.next_stream = self.epoch * 1000
        self.clients.append(client)
        if hello:
            client.welcome = client.hello(takeover=takeover, **options)
        return client

    def disconnect(self, client):
        os.close(client.to_agent)
        os.close(client.from_agent)
        self.clients.remove(client)

    def agent_pid(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            return int(file.read().split()[0])

    def processes(self):
        """Names of all processes of the sandbox, seen from outside, without PID 1 and its spare supervisor."""
        return [name for _, name in self._below_agent() if name != SPARE]

    def spares(self):
        """Process ids of supervisors that wait for a command."""
        return [pid for pid, name in self._below_agent() if name == SPARE]

    def _below_agent(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            todo = [int(pid) for pid in file.read().split()]
        found = []
        while todo:
            try:
                with open(f"/proc/{todo[0]}/task/{todo[0]}/children") as file:
                    children = [int(pid) for pid in file.read().split()]
                for pid in children:
                    with open(f"/proc/{pid}/comm") as file:
                        found.append((pid, file.read().strip()))
            except (FileNotFoundError, ProcessLookupError):
                children = []
            todo = todo[1:] + children
        return found

    def close(self):
        for client in list(self.clients):
            self.disconnect(client)
        try:
            # Not `unshare`: that ends when PID 1 is gone with all its processes.
            os.kill(self.agent_pid(), signal.SIGKILL)
        except (IndexError, FileNotFoundError, ProcessLookupError):
            pass
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
