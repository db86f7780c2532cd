"""Base of tests with a filtered sandbox in a network of the test's own."""
import json
import threading

import network
from sandbox_case import SandboxCase, call, wait_for

CONTROL, CONTROL_ADDRESS = "control.example.org", "203.0.113.99"
PUBLIC4, PUBLIC6 = "203.0.113.10", "2001:db8:2::10"

# Runs inside: speaks with the proxy in bytes.
PROXY = r'''
import json, os, socket, ssl, struct, sys
PROXY = ("127.0.0.1", 13128)
def rest(s):
    """All that comes until the end."""
    out = b""
    try:
        while part := s.recv(65536): out += part
    except ConnectionResetError: pass
    return out
def ask(data):
    """What the proxy answers to these bytes."""
    with socket.create_connection(PROXY, 60) as s:
        try: s.sendall(data)
        except (BrokenPipeError, ConnectionResetError): pass  # it has heard enough
        return rest(s)
def head(s):
    out = b""
    while not out.endswith(b"\r\n\r\n") and (part := s.recv(1)): out += part
    return out
def status(answer): return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0
def connect(target, host=None):
    """A socket and the status of a CONNECT."""
    s = socket.create_connection(PROXY, 60)
    target = target if isinstance(target, bytes) else target.encode()
    s.sendall(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, host or target))
    return s, status(head(s))
def get(url, host=None):
    url = url if isinstance(url, bytes) else url.encode()
    if host is None: host = url.split(b"://", 1)[1].split(b"/", 1)[0]
    return ask(b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (url, host))
def socks(kind, host, port, command=1):
    """A socket and the reply of SOCKS5: 0 is yes, -1 a hang-up."""
    s = socket.create_connection(PROXY, 60)
    s.sendall(b"\x05\x01\x00" + bytes([5, command, 0, kind]) + host + struct.pack("!H", port))
    answer = b""
    while len(answer) < 4 and (part := s.recv(4 - len(answer))): answer += part
    return s, answer[3] if len(answer) == 4 else -1
def socks_name(name, port): return socks(3, bytes([len(name)]) + name, port)
def socks_address(text, port):
    six = ":" in text
    return socks(4 if six else 1, socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, text), port)
def tls(s, name):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(s, server_hostname=name)
'''


class EgressCase(SandboxCase):
    """A network as cls.net with a web server at every address, a sandbox cls.box that may reach `allow`."""
    allow = ()

    @classmethod
    def setUpClass(cls):
        cls.net = cls.enterClassContext(network.TestNetwork())
        cls.net.dns[CONTROL] = CONTROL_ADDRESS
        cls.net.serve_http()
        super().setUpClass()
        done = call(cls.client, "sandbox_create", name="filtered", allow=[CONTROL, *cls.allow])
        assert not done.is_error, done.text
        cls.box = done.structured["sandbox_id"]

    @classmethod
    def server(cls, *args, **options):
        return super().server(*args, under=cls.net.host.enter, **options)

    def setUp(self):
        self._packets, self._questions = len(self.net.seen()), len(self.net.dns.questions)
        self._requests = len(self.net.requests)

    def create(self, **arguments):
        box = self.ok("sandbox_create", **arguments)["sandbox_id"]
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=box)
        return box

    def with_authority(self, box):
        """The sandbox, with the certificate of the network's authority in /tmp/ca.pem."""
        with open(self.net.ca.certificate, encoding="utf-8") as f:
            self.ok("sandbox_write_file", sandbox_id=box, path="/tmp/ca.pem", content=f.read())
        return box

    def inside(self, code, box=None):
        """What the code prints as JSON, which has the functions of PROXY."""
        return json.loads(self.python(PROXY + code, sandbox_id=box or self.box))

    def exec(self, command, box=None):
        return self.ok("sandbox_exec", command=command, sandbox_id=box or self.box)

    def left(self):
        """(packets, questions about names) that left the host since the test began, the control's taken off: that is a
        request that comes after all that was sent before it."""
        control = ("tcp", CONTROL_ADDRESS, 80)
        before = self.net.seen().count(control)
        self.assertIn('"method": "GET"', self.sh(f"curl -sS -m 60 http://{CONTROL}/", sandbox_id=self.box))
        wait_for("the control's packets", lambda: self.net.seen().count(control) > before)
        packets = set(self.net.seen()[self._packets:]) - {control, ("udp", network.RESOLVER4, 53)}
        return packets, {name for name, _ in self.net.dns.questions[self._questions:]} - {CONTROL}

    def assert_nothing_left(self):
        self.assertEqual(self.left(), (set(), set()))

    def requests(self):
        """What web servers were asked since the test began, but for the control."""
        return [r for r in self.net.requests[self._requests:] if r["host"] != CONTROL]

    def answering(self, address, port, answer):
        """A server of the internet that says answer(what it was sent first) to each connection and hangs up."""
        s = self.net.internet.listen(address, port)

        def accept():
            try:
                while True:
                    with s.accept()[0] as connection:
                        connection.sendall(answer(connection.recv(65536)))
            except OSError:
                return
        threading.Thread(target=accept, daemon=True).start()
        self.addCleanup(s.close)
        self.addCleanup(s.shutdown, 2)

    def canary(self):
        """The port of a service on every address of the host, which is shown to answer there."""
        asked = self.net.serve_http(0, namespace=self.net.host, addresses=("0.0.0.0",))
        self.net.serve_http(asked, namespace=self.net.host, addresses=("::",))
        self.assertIn("method", self.net.host.run("curl", "-sS", "--noproxy", "*", f"http://127.0.0.1:{asked}/"))
        self.assertIn("method", self.net.host.run("curl", "-sS", "--noproxy", "*", f"http://[::1]:{asked}/"))
        self._requests = len(self.net.requests)
        return asked
