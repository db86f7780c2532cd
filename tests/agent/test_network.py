"""Connections in the sandbox that the host is given, when descriptors run out."""

import struct
import subprocess
import sys
import time

import sandbox
import support

CLIENTS = 40
PORT = 9000
CONNECT = f"""
import socket, sys
held = [socket.create_connection(("127.0.0.1", {PORT})) for _ in range({CLIENTS})]
print("connected", flush=True)
sys.stdin.read()
"""


class FewDescriptors(support.SandboxTest):
    def setUp(self):
        self.use(sandbox.Sandbox(before="ip link set lo up; ulimit -n 32;"))

    def accepted(self):
        """Streams of connections that the host was told of."""
        self.client.ping()
        return {stream for stream, frames in self.client.queues.items() if frames and frames[0][0] == "accepted"}

    def wait_for(self, what, condition):
        end = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.01)

    def test_clients_that_found_no_descriptor_are_served_when_there_is_one_again(self):
        listener = self.client.stream()
        self.client.send("listen", listener, struct.pack("<H", PORT))
        self.client.expect("ready", listener)
        with subprocess.Popen(["nsenter", f"--net=/proc/{self.sandbox.agent_pid()}/ns/net", sys.executable, "-c", CONNECT],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as clients:
            self.assertEqual(clients.stdout.readline(), b"connected\n")
            self.wait_for("some are served", self.accepted)
            self.assertLess(len(self.accepted()), CLIENTS)
            served = set()

            def all_served():
                for stream in self.accepted() - served:  # nobody new comes: only places get free
                    self.client.send("cancel", stream)
                    served.add(stream)
                return len(served) == CLIENTS

            self.wait_for("all are served", all_served)
            clients.stdin.close()


if __name__ == "__main__":
    support.main()
