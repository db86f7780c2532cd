"""A network of the test's own, with an internet that answers at every address, so that a test sees whatever leaves.

    with network.TestNetwork() as net:
        net.dns["files.example.org"] = ["203.0.113.10", "2001:db8:2::10"]
        net.serve_http()                                   # on port 80 of every address there is
        net.serve_tls(["files.example.org"])               # on port 443, by net.ca
        client = Client([*net.host.enter, HUTCH, "mcp"])   # SandboxCase.server(under=net.host.enter) does the same
        ...
        net.requests                                       # what the HTTP and TLS servers were asked
        net.dns.questions                                  # (name, type) of each question
        net.seen()                                         # (protocol, destination, port) of every packet that left

`net.host` is the machine that hutch runs on: 198.51.100.2, 2001:db8:1::2 and 10.77.0.2, with an /etc/resolv.conf and a
trust store that name net.dns and net.ca. `net.internet` is all else: private, metadata and public addresses alike are
its own, whose default route leads to itself. Both are network namespaces without a name, each held by one process that
ends when this one does, and with them all that is in them. Servers are threads of the test, their sockets are born in a
namespace (`net.internet.call(function)`), so what they know is at hand. Needs root and the program `ip`.
"""
import contextlib
import ctypes
import ipaddress
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import unittest

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
TCP_SYN, TCP_ACK = 0x02, 0x10
IP_FREEBIND, IPV6_FREEBIND = 15, 78
HOST4, HOST6, HOST_LAN = "198.51.100.2", "2001:db8:1::2", "10.77.0.2"
RESOLVER4, RESOLVER6 = "203.0.113.53", "2001:db8:2::53"
TYPES = {1: "A", 5: "CNAME", 28: "AAAA"}
_libc = ctypes.CDLL(None, use_errno=True)


def skip_when_impossible():
    if os.geteuid() != 0:
        raise unittest.SkipTest("network namespaces of the test's own need root")
    if not shutil.which("ip"):
        raise unittest.SkipTest("needs the program ip: apt-get install iproute2")


class Namespace:
    """Network and mounts of a machine, held by a process that reads from us and so ends with us."""

    def __init__(self):
        self._holder = subprocess.Popen(["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c",
                                         "echo up; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout.readline() == b"up\n"
        pid = self._holder.pid
        self.pid, self._fd = pid, os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        self.enter = ["nsenter", f"--net=/proc/{pid}/ns/net", f"--mount=/proc/{pid}/ns/mnt", "--"]
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command):
        done = subprocess.run([*self.enter, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def ip(self, words):
        self.run("ip", *words.split())

    def call(self, function):
        """What the function returns in this namespace: a socket stays in it."""
        result = []

        def work():
            if _libc.setns(self._fd, CLONE_NEWNET) != 0:
                result.append(OSError(ctypes.get_errno(), "setns"))
                return
            try:
                result.append(function())
            except OSError as error:
                result.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if isinstance(result[0], OSError):
            raise result[0]
        return result[0]

    def listen(self, address, port, kind=socket.SOCK_STREAM):
        """A bound socket, listening where that is a thing to do; port 0: any."""
        def bind():
            s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Of the addresses that a route makes local, none is on a card.
            if s.family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                s.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            else:
                s.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            s.bind((address, port))
            if kind == socket.SOCK_STREAM:
                s.listen(64)
            return s
        return self.call(bind)

    def close(self):
        os.close(self._fd)
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(10)


def forever(work, *sockets):
    """Calls work(socket) for each of them until the socket is shut, each in a thread of its own."""
    def loop(s):
        with contextlib.suppress(OSError):
            while True:
                work(s)
    for s in sockets:
        threading.Thread(target=loop, args=(s,), daemon=True).start()


class Dns(dict):
    """Names and what they lead to: addresses, or one other name (CNAME), or a function that returns these, called at each
    question. What is not here does not exist. `questions`: (name, type) of all that came; those about names in `silent`
    are never answered."""

    def __init__(self, namespace):
        super().__init__()
        self.questions, self.silent = [], set()
        self.sockets = [namespace.listen(a, 53, k) for a in (RESOLVER4, RESOLVER6)
                        for k in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
        forever(self._datagram, *self.sockets[::2])
        forever(self._stream, *self.sockets[1::2])

    def _datagram(self, s):
        question, peer = s.recvfrom(4096)
        if not question:
            raise OSError("shut down")
        if answer := self._answer(question, 1200):
            s.sendto(answer, peer)

    def _stream(self, s):
        connection = s.accept()[0]

        def talk():
            with connection, contextlib.suppress(OSError):
                while head := connection.recv(2, socket.MSG_WAITALL):
                    if answer := self._answer(connection.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL), 65535):
                        connection.sendall(struct.pack("!H", len(answer)) + answer)
        threading.Thread(target=talk, daemon=True).start()

    def _answer(self, question, most):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode("latin-1"))
            at += 1 + question[at]
        kind = struct.unpack("!H", question[at + 1:at + 3])[0]
        name = ".".join(labels).lower()
        self.questions.append((name, TYPES.get(kind, str(kind))))
        if name in self.silent:
            return b""
        records, known = self._records(name, kind)
        flags = 0x8180 if known else 0x8183
        body = question[12:at + 5] + b"".join(records)
        if len(body) + 12 > most:
            flags, records, body = flags | 0x0200, [], question[12:at + 5]
        return question[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + body

    def _records(self, name, kind):
        records = []
        for _ in range(8):
            found = self.get(name)
            if found is None:
                break
            found = found() if callable(found) else found
            found = [found] if isinstance(found, str) else found
            try:
                addresses = [ipaddress.ip_address(a) for a in found]
            except ValueError:
                records.append(self._record(name, 5, self._wire(found[0])))
                name = found[0].lower()
                continue
            records += [self._record(name, kind, a.packed) for a in addresses if kind == (1 if a.version == 4 else 28)]
            return records, True
        return records, bool(records)

    @staticmethod
    def _wire(name):
        return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"

    @classmethod
    def _record(cls, name, kind, data):
        return cls._wire(name) + struct.pack("!HHIH", kind, 1, 0, len(data)) + data


class Authority:
    """A CA of the test: `certificate` is a file, context(names) is for a server with these names."""

    def __init__(self, folder):
        self.folder = folder
        self.certificate, self._key = f"{folder}/ca.pem", f"{folder}/ca.key"
        self._made = {}
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                      "/CN=hutch test CA", "-keyout", self._key, "-out", self.certificate)

    @staticmethod
    def _openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)

    def files(self, names):
        """(certificate, key) for a server."""
        key = tuple(names)
        if key not in self._made:
            base = f"{self.folder}/{len(self._made)}"
            alternatives = ",".join(("IP:" if n.replace(".", "").isdigit() or ":" in n else "DNS:") + n for n in names)
            with open(base + ".ext", "w", encoding="utf-8") as f:
                f.write(f"subjectAltName={alternatives}\n")
            self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=server",
                          "-keyout", base + ".key", "-out", base + ".csr")
            self._openssl("x509", "-req", "-in", base + ".csr", "-CA", self.certificate, "-CAkey", self._key, "-days", "1",
                          "-CAcreateserial", "-extfile", base + ".ext", "-out", base + ".pem")
            self._made[key] = base + ".pem", base + ".key"
        return self._made[key]

    def context(self, names):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.files(names))
        return context


class TestNetwork:
    __test__ = False

    def __init__(self):
        skip_when_impossible()
        self._cleanup = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as made:
            self.folder = made.enter_context(tempfile.TemporaryDirectory(prefix="hutch-net-"))
            os.chmod(self.folder, 0o755)
            self.internet, self.host = Namespace(), None
            made.callback(self.internet.close)
            self.host = Namespace()
            made.callback(self.host.close)
            self._sockets = []
            made.callback(self._shut)
            self._connect()
            self.requests = []  # of all servers: dicts of server, port, sni, host, method, path, headers, body
            self.pages = {}     # (host, path) -> bytes; anything else is answered with the request as JSON
            self._packets, self._flows, self._packet_lock = [], set(), threading.Lock()
            self._watch()
            self.dns = Dns(self.internet)
            self._sockets += self.dns.sockets
            self.ca = Authority(self.folder)
            self._furnish()
            self._cleanup = made.pop_all()
        return self

    def __exit__(self, *_):
        self._cleanup.close()

    def _shut(self):
        for s in self._sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def _connect(self):
        self.host.ip(f"link add wan0 type veth peer name net0 netns {self.internet.pid}")
        for namespace, card, here in ((self.host, "wan0", 2), (self.internet, "net0", 1)):
            namespace.ip(f"link set {card} up")
            namespace.ip(f"addr add 198.51.100.{here}/24 dev {card}")
            namespace.ip(f"addr add 2001:db8:1::{here}/64 dev {card} nodad")
        self.host.ip(f"addr add {HOST_LAN}/24 dev wan0")
        self.host.ip("route add default via 198.51.100.1")
        self.host.ip("-6 route add default via 2001:db8:1::1")
        self.internet.ip("route add local default dev lo table main")
        self.internet.ip("-6 route add local default dev lo table main")
        self.internet.ip("addr add 10.77.0.1/24 dev net0")

    def _furnish(self):
        """What programs of the host find in /etc, in its mounts alone."""
        with open(f"{self.folder}/resolv.conf", "w", encoding="utf-8") as f:
            f.write(f"nameserver {RESOLVER4}\nnameserver {RESOLVER6}\n")
        self.host.run("mount", "--bind", f"{self.folder}/resolv.conf", os.path.realpath("/etc/resolv.conf"))
        bundle = "/etc/ssl/certs/ca-certificates.crt"
        if os.path.exists(bundle):
            shutil.copy(bundle, f"{self.folder}/bundle.pem")
            with open(self.ca.certificate, encoding="utf-8") as ca, open(f"{self.folder}/bundle.pem", "a",
                                                                       encoding="utf-8") as f:
                f.write(ca.read())
            self.host.run("mount", "--bind", f"{self.folder}/bundle.pem", bundle)

    # -- what left the host -----------------------------------------------------------------------------------

    def _watch(self):
        def open_it():
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            s.bind(("net0", 0))
            return s
        s = self.internet.call(open_it)
        self._sockets.append(s)

        def note(s):
            frame, where = s.recvfrom(65536)
            if where[2] != socket.PACKET_OUTGOING and (packet := self._read(frame)):
                *packet, flow, begins = packet
                with self._packet_lock:
                    # Of a connection only the first: its last ones may come while the next test runs.
                    if begins or flow not in self._flows:
                        self._packets.append(tuple(packet))
                    if begins:
                        self._flows.add(flow)
        forever(note, s)

    @staticmethod
    def _read(frame):
        """(protocol, destination, port, addresses and ports of the connection, whether it begins it) or None."""
        kind, ip = struct.unpack("!H", frame[12:14])[0], frame[14:]
        if kind == 0x0800:
            protocol, ends, rest = ip[9], ip[12:20], ip[(ip[0] & 15) * 4:]
            to = socket.inet_ntop(socket.AF_INET, ends[4:])
        elif kind == 0x86DD:
            protocol, ends, rest = ip[6], ip[8:40], ip[40:]
            to = socket.inet_ntop(socket.AF_INET6, ends[16:])
        else:
            return None  # ARP: the host looks for its gateway
        name = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}.get(protocol, str(protocol))
        port = struct.unpack("!H", rest[2:4])[0] if name in ("tcp", "udp") else None
        begins = name == "tcp" and rest[13] & (TCP_SYN | TCP_ACK) == TCP_SYN
        return name, to, port, (ends, rest[:4]) if name == "tcp" else None, begins

    def seen(self):
        """(protocol, destination, port) of the packets that left the host so far, but for the host's own housekeeping by
        IPv6: neighbours and groups."""
        with self._packet_lock:
            return [p for p in self._packets if not (p[0] in ("icmp6", "0") and ipaddress.ip_address(p[1]).is_multicast
                                                     or p[0] == "icmp6" and p[1] in ("2001:db8:1::1", "fe80::1")
                                                     or p[0] == "icmp6" and p[1].startswith("fe80:"))]

    # -- servers ----------------------------------------------------------------------------------------------

    def serve_http(self, port=80, context=None, namespace=None, addresses=("0.0.0.0", "::")):
        """At every address of the internet unless told otherwise; with a context, over TLS. Returns the port."""
        sockets = [(namespace or self.internet).listen(a, port) for a in addresses]
        self._sockets += sockets

        def accept(s):
            connection = s.accept()[0]
            threading.Thread(target=self._talk, args=(connection, context), daemon=True).start()
        forever(accept, *sockets)
        return sockets[0].getsockname()[1]

    def serve_tls(self, names, port=443, **options):
        return self.serve_http(port, self.ca.context(names), **options)

    def _talk(self, connection, context):
        sni = [None]
        connection.settimeout(60)
        with contextlib.suppress(OSError, ValueError), connection:
            server = connection.getsockname()
            if context:
                context.sni_callback = lambda _socket, name, _context: sni.__setitem__(0, name)
                connection = context.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rwb") as stream:
                while self._answer(stream, server, sni[0]):
                    pass

    def _answer(self, stream, server, sni):
        line = stream.readline(65536).decode("latin-1").split()
        if len(line) != 3:
            return False
        headers = {}
        while (header := stream.readline(65536).decode("latin-1").strip()):
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", 0))).decode("latin-1")
        request = {"server": server[0], "port": server[1], "sni": sni, "host": headers.get("host"), "method": line[0],
                   "path": line[1], "headers": headers, "body": body}
        self.requests.append(request)
        page = self.pages.get(((headers.get("host") or "").split(":")[0], line[1]), json.dumps(request).encode())
        stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + (b"" if line[0] == "HEAD" else page))
        stream.flush()
        return headers.get("connection", "").lower() != "close"

    def serve_echo(self, port=7, namespace=None, addresses=("0.0.0.0", "::")):
        """TCP: what comes goes back, until the peer ends."""
        sockets = [(namespace or self.internet).listen(a, port) for a in addresses]
        self._sockets += sockets

        def talk(connection):
            with connection, contextlib.suppress(OSError):
                while data := connection.recv(65536):
                    connection.sendall(data)

        def accept(s):
            threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()
        forever(accept, *sockets)
        return sockets[0].getsockname()[1]

    def serve_udp_echo(self, address, port=7):
        """At one address: an answer of UDP comes from the one that the socket has."""
        s = self.internet.listen(address, port, socket.SOCK_DGRAM)
        self._sockets.append(s)

        def answer(s):
            data, peer = s.recvfrom(65536)
            if peer is None:
                raise OSError("shut down")
            s.sendto(data, peer)
        forever(answer, s)
        return s.getsockname()[1]
