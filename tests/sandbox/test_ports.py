"""Ports of sandboxes that are reached from the host: any protocol on a listener of its own, HTTP and WebSocket on the shared one."""
import base64
import concurrent.futures
import hashlib
import http.client
import json
import os
import re
import socket
import struct
import threading
import unittest
import urllib.parse

from sandbox_case import SandboxCase, call, wait_for

ECHO = r"""
import socket, sys, threading
family = socket.AF_INET6 if sys.argv[2] == '6' else socket.AF_INET
server = socket.socket(family); server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(('::1' if sys.argv[2] == '6' else '127.0.0.1', int(sys.argv[1]))); server.listen(1024)
def echo(client):
    while data := client.recv(65536): client.sendall(data)
    client.sendall(b'END'); client.close()
while True: threading.Thread(target=echo, args=[server.accept()[0]], daemon=True).start()
"""

WEB = r"""
import http.server, hashlib, base64, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
    def do_GET(self):
        if self.headers.get('Upgrade') == 'websocket': return self.websocket()
        self.answer()
    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers['Content-Length'])).decode())
    def answer(self, body=''):
        text = json.dumps({'path': self.path, 'method': self.command, 'headers': dict(self.headers), 'body': body}).encode()
        self.send_response(200); self.send_header('Content-Length', len(text)); self.send_header('Content-Type', 'application/json')
        self.end_headers(); self.wfile.write(text)
    def websocket(self):
        key = self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        self.send_response(101); self.send_header('Upgrade', 'websocket'); self.send_header('Connection', 'Upgrade')
        self.send_header('Sec-WebSocket-Accept', base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()); self.end_headers()
        self.wfile.flush()
        while data := self.connection.recv(65536): self.connection.sendall(data)   # frames are echoed as bytes
        self.close_connection = True
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"""

# Answers as soon as a request has begun; what comes of it by its path.
HASTY = r"""
import socket, threading
KINDS = {'/early': b'HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno',
         '/switch': b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
         '/noise': b'what?\r\n\r\n', '/drop': b''}
server = socket.create_server(('127.0.0.1', 8007))
def serve(client):
    try:
        while data := client.recv(65536):
            with open('seen', 'ab') as seen: seen.write(data)
            kind = data.split(b' ')[1].decode()
            if kind == '/drop': return client.close()
            client.sendall(KINDS.get(kind, b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'))
    except OSError: pass
while True: threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
"""

# Writes down who has connected, and what came.
GUEST_BOOK = r"""
import socket, threading
server = socket.create_server(('127.0.0.1', 7020), backlog=1024)
def serve(client):
    with open('seen', 'ab') as seen: seen.write(b'connected ')
    try:
        while data := client.recv(65536):
            with open('seen', 'ab') as seen: seen.write(data)
            client.sendall(b'welcome')
    except OSError: pass
while True: threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
"""

OTHER_USER = 54321

# Never ends an answer, and notes which connections end.
SILENT = r"""
import socket, threading
server = socket.create_server(('127.0.0.1', 8008))
def serve(client):
    path = client.recv(65536).split(b' ')[1].decode()
    with open('began', 'a') as began: began.write(path + '\n')
    if path == '/stream': client.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n')
    try:
        while client.recv(65536): pass
    except OSError: pass
    with open('ended', 'a') as ended: ended.write(path + '\n')
while True: threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
"""


class PortCase(SandboxCase):
    def create(self, **arguments):
        return self.ok("sandbox_create", **arguments)["sandbox_id"]

    def destroy(self, box):
        self.ok("sandbox_destroy", sandbox_id=box)

    def start(self, code, *arguments, **more):
        box = self.create(**more)
        self.ok("sandbox_write_file", sandbox_id=box, path="server.py", content=code)
        self.ok("sandbox_exec", sandbox_id=box, argv=["python3", "server.py", *map(str, arguments)], background=True)
        self.addCleanup(lambda: self.destroy(box))
        return box

    def expose(self, box, port, **more):
        return self.ok("sandbox_expose_port", sandbox_id=box, port=port, **more)["host_port"]


def connect(port):
    client = socket.socket()  # create_connection() looks for a module, which another user may not read
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    return client


def read_all(client):
    out = b""
    while data := client.recv(1 << 20):
        out += data
    return out


class OwnListener(PortCase):
    def test_bytes_go_both_ways_and_each_direction_ends_by_itself(self):
        box = self.start(ECHO, 7000, 4)
        port = self.expose(box, 7000)
        for size in (0, 1, 3_000_000):
            data = os.urandom(size)
            client = connect(port)
            sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
            sender.start()
            got = read_all(client)
            sender.join()
            self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(data + b"END").digest())
            client.close()

    def test_a_server_on_ipv6_loopback_is_found(self):
        box = self.start(ECHO, 7006, 6)
        client = connect(self.expose(box, 7006))
        client.sendall(b"six")
        self.assertEqual(client.recv(10), b"six")
        client.close()

    def test_it_waits_until_something_listens_and_says_when_nothing_does(self):
        box = self.create()
        message = self.refused("sandbox_expose_port", sandbox_id=box, port=7001, timeout_s=0.3)
        self.assertIn("port 7001", message)
        self.assertIn("refused", message)
        self.ok("sandbox_write_file", sandbox_id=box, path="server.py", content=ECHO)
        self.ok("sandbox_exec", sandbox_id=box, command="sleep 0.5; python3 server.py 7001 4", background=True)
        client = connect(self.expose(box, 7001))
        client.sendall(b"x")
        self.assertEqual(client.recv(10), b"x")
        client.close()
        self.destroy(box)

    def test_a_thousand_connections_are_served_at_once(self):
        box = self.start(ECHO, 7002, 4, pids=2048)
        port = self.expose(box, 7002)
        clients = [connect(port) for _ in range(1000)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        for number, client in enumerate(clients):
            self.assertEqual(client.recv(100), b"%d" % number)
        listed, = self.ok("sandbox_list_ports", sandbox_id=box)["ports"]
        self.assertEqual((listed["port"], listed["host_port"], listed["connections"]), (7002, port, 1000))
        for client in clients:
            client.close()
        wait_for("they are gone", lambda: self.ok("sandbox_list_ports", sandbox_id=box)["ports"][0]["connections"] == 0)

    def test_who_does_not_read_stops_nobody_and_costs_no_memory(self):
        box = self.start(ECHO, 7003, 4)
        port = self.expose(box, 7003)
        stuck = connect(port)
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.settimeout(0.5)
        sent = 0
        with self.assertRaises(TimeoutError):
            while sent < 200 << 20:  # what is echoed is never read
                sent += stuck.send(b"x" * 65536)
        self.assertLess(sent, 64 << 20)
        client = connect(port)
        client.sendall(b"still served")
        self.assertEqual(client.recv(100), b"still served")
        self.assertEqual(self.sh("echo commands too", sandbox_id=box), "commands too\n")
        client.close()
        stuck.close()

    def test_a_server_that_closes_at_once_or_dies_is_seen_as_such(self):
        box = self.start("import socket; s = socket.create_server(('127.0.0.1', 7004))\nwhile True: s.accept()[0].close()")
        port = self.expose(box, 7004)
        client = connect(port)
        try:
            self.assertEqual(read_all(client), b"")
        except ConnectionResetError:
            pass
        client.close()
        self.sh("pkill -f '[s]erver.py'; true", sandbox_id=box)
        client = connect(port)
        with self.assertRaises(ConnectionError):
            if read_all(client) == b"":
                raise ConnectionResetError
        client.close()

    def test_it_is_closed_with_its_connections_by_the_tool_and_with_the_sandbox(self):
        box = self.start(ECHO, 7005, 4)
        port = self.expose(box, 7005)
        self.assertEqual(self.expose(box, 7005), port)
        client = connect(port)
        client.sendall(b"x")
        self.assertEqual(client.recv(10), b"x")
        self.assertTrue(self.ok("sandbox_close_port", sandbox_id=box, port=7005)["closed"])
        self.assertFalse(self.ok("sandbox_close_port", sandbox_id=box, port=7005)["closed"])
        self.assert_over(client)
        wait_for("nobody listens", lambda: self.is_closed(port))
        port = self.expose(box, 7005)
        client = connect(port)
        client.sendall(b"x")
        self.assertEqual(client.recv(10), b"x")
        self.destroy(box)
        self.assert_over(client)
        wait_for("nobody listens", lambda: self.is_closed(port))

    def test_a_port_of_the_host_can_be_named_and_a_taken_one_is_a_conflict(self):
        box = self.start(ECHO, 7007, 4)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            self.assertIn(str(number), self.refused("sandbox_expose_port", sandbox_id=box, port=7007, host_port=number))
            self.assertEqual(self.ok("sandbox_list_ports", sandbox_id=box)["ports"], [])
        self.assertEqual(self.expose(box, 7007, host_port=number), number)

    def visit(self, port, count=1, waits=True, user=None):
        """What comes back to a process of that user which says something in as many connections."""
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            try:
                if user is not None:
                    os.setgroups([])
                    os.setresgid(user, user, user)
                    os.setresuid(user, user, user)
                for _ in range(count):
                    try:
                        client = connect(port)
                        client.sendall(b"a visitor ")
                        if waits:
                            os.write(writing, client.recv(100))
                        client.close()
                    except ConnectionError:
                        pass
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as heard:
            out = heard.read()
        os.waitpid(child, 0)
        return out

    @unittest.skipUnless(os.geteuid() == 0, "only root can be another user")
    def test_other_users_of_the_host_reach_nothing_and_are_counted(self):
        box = self.start(GUEST_BOOK)
        port = self.expose(box, 7020)
        self.assertEqual(self.visit(port, user=OTHER_USER), b"")
        self.assertEqual(self.visit(port, count=50, waits=False, user=OTHER_USER), b"")  # has gone before it is looked at
        self.assertEqual(self.visit(port), b"welcome")
        self.assertEqual(self.sh("cat seen", sandbox_id=box), "connected connected a visitor ")  # first by expose_port itself
        listed, = self.ok("sandbox_list_ports", sandbox_id=box)["ports"]
        self.assertEqual(listed["refused"], 51)
        with open(os.path.join(self.home, "audit.jsonl")) as audit:
            lines = [json.loads(line) for line in audit]
        about = {"sandbox_id": box, "allowed": False, "protocol": "port", "host": "127.0.0.1", "port": port}
        self.assertEqual({key: lines[0][key] for key in about}, about)
        self.assertIn(f"user {OTHER_USER}", lines[0]["why"])

    @unittest.skipUnless(os.geteuid() == 0, "only root can be another user")
    def test_the_configuration_can_let_other_users_in(self):
        with self.server("--results", "structured", env={"HUTCH_PORTS__OTHER_USERS": "true"}) as client:
            box = call(client, "sandbox_create").structured["sandbox_id"]
            call(client, "sandbox_write_file", sandbox_id=box, path="server.py", content=GUEST_BOOK)
            call(client, "sandbox_exec", sandbox_id=box, argv=["python3", "server.py"], background=True)
            port = call(client, "sandbox_expose_port", sandbox_id=box, port=7020).structured["host_port"]
            self.assertEqual(self.visit(port, user=OTHER_USER), b"welcome")

    def assert_over(self, client):
        try:
            self.assertEqual(client.recv(10), b"")
        except ConnectionResetError:
            pass
        client.close()

    def is_closed(self, port):
        try:
            connect(port).close()
        except ConnectionRefusedError:
            return True
        return False


class SharedListener(PortCase):
    def open(self, box, port):
        urls = self.ok("sandbox_port_url", sandbox_id=box, port=port)
        browser, program = (urllib.parse.urlsplit(urls[name]) for name in ("url", "path_url"))
        self.assertEqual(program.hostname, "127.0.0.1")
        self.assertEqual(browser.hostname, f"{port}-{box}.localhost")
        self.assertEqual(browser.port, program.port)
        return browser, program

    def ask(self, port, target, host=None, method="GET", body=None, client=None, **headers):
        client = client or http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        client.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        client.putheader("Host", host or f"127.0.0.1:{port}")
        for name, value in headers.items():
            client.putheader(name.replace("_", "-"), value)
        if body is not None:
            client.putheader("Content-Length", str(len(body)))
        client.endheaders(body)
        answer = client.getresponse()
        content = answer.read()
        return answer, content

    def inside(self, content):
        return json.loads(content)

    def test_programs_use_the_path_and_the_server_inside_sees_only_what_is_its_own(self):
        box = self.start(WEB, 8000)
        self.expose(box, 8000)
        _, program = self.open(box, 8000)
        client = http.client.HTTPConnection("127.0.0.1", program.port, timeout=20)
        for _ in range(3):  # on one connection
            answer, content = self.ask(program.port, program.path + "a/b?c=d", client=client)
            seen = self.inside(content)
            self.assertEqual((answer.status, seen["path"], seen["headers"]["Host"]), (200, "/a/b?c=d", "localhost:8000"))
        answer, content = self.ask(program.port, program.path, method="POST", body=b"x" * 300_000, client=client)
        self.assertEqual(len(self.inside(content)["body"]), 300_000)
        self.assertNotIn(program.path.split("/")[-2], content.decode())
        self.assertEqual(answer.headers["Content-Security-Policy"], "sandbox")

    def test_without_the_right_token_nothing_is_passed_on(self):
        box = self.start(WEB, 8001)
        other = self.start(WEB, 8001)
        self.expose(box, 8001), self.expose(other, 8001)
        browser, program = self.open(box, 8001)
        _, of_other = self.open(other, 8001)
        token, wrong = program.path.split("/")[-2], of_other.path.split("/")[-2]
        self.assertNotEqual(token, wrong)
        for bad in (wrong, "", "x", token[:-1], token + "0", token.upper()):
            path = program.path.replace(token, bad)
            self.assertIn(self.ask(program.port, path)[0].status, (403, 404), bad)
            answer, _ = self.ask(program.port, f"/?hutch_token={bad}", host=browser.netloc)
            self.assertEqual(answer.status, 403, bad)
        self.assertEqual(self.ask(program.port, "/", host=browser.netloc)[0].status, 403)
        self.assertEqual(self.ask(program.port, "/", host=browser.netloc, Cookie=f"hutch_token={wrong}")[0].status, 403)
        self.ok("sandbox_close_port", sandbox_id=box, port=8001)
        self.assertEqual(self.ask(program.port, program.path)[0].status, 403)

    def test_a_browser_gets_a_cookie_once_and_then_pages(self):
        box = self.start(WEB, 8002)
        self.expose(box, 8002)
        browser, _ = self.open(box, 8002)
        answer, _ = self.ask(browser.port, f"/page?x=1&{browser.query}&y=2", host=browser.netloc)
        self.assertEqual((answer.status, answer.headers["Location"]), (303, "/page?x=1&y=2"))
        cookie = answer.headers["Set-Cookie"]
        self.assertRegex(cookie, "^hutch_token=[0-9a-f]{32}; .*HttpOnly")
        self.assertIn("SameSite", cookie)
        value = cookie.split(";")[0]
        answer, content = self.ask(browser.port, "/page?x=1&y=2", host=browser.netloc, Cookie=f"a=b; {value}; c=d")
        seen = self.inside(content)
        self.assertEqual((answer.status, seen["path"], seen["headers"]["Cookie"]), (200, "/page?x=1&y=2", "a=b; c=d"))
        self.assertNotIn(value.split("=")[1], content.decode())
        # Not to another host, however it begins.
        answer, _ = self.ask(browser.port, f"//evil.example/?{browser.query}", host=browser.netloc)
        self.assertEqual(answer.headers["Location"], "/evil.example/")

    def test_other_origins_other_hosts_and_browsers_on_the_path_are_refused(self):
        box = self.start(WEB, 8003)
        self.expose(box, 8003)
        browser, program = self.open(box, 8003)
        cookie = {"Cookie": browser.query}
        origin = f"http://{browser.netloc}"
        for name in ("http://evil.example", "null", f"http://127.0.0.1:{browser.port}", f"http://8003-sbx-000000000000.localhost:{browser.port}",
                     f"http://{browser.hostname}", f"https://{browser.netloc}", origin + ".evil.example"):
            self.assertEqual(self.ask(browser.port, "/", host=browser.netloc, Origin=name, **cookie)[0].status, 403, name)
        self.assertEqual(self.ask(browser.port, "/", host=browser.netloc, Origin=origin, **cookie)[0].status, 200)
        for host in ("evil.example", f"evil.example:{browser.port}", browser.hostname, f"localhost.evil.example:{browser.port}",
                     f"{browser.hostname}:1", "", f"[::1]:{browser.port}"):
            self.assertIn(self.ask(browser.port, program.path, host=host or " ", **cookie)[0].status, (400, 421), host)
        self.assertEqual(self.ask(browser.port, program.path, Origin=f"http://127.0.0.1:{browser.port}")[0].status, 403)
        self.assertEqual(self.ask(browser.port, program.path, Sec_Fetch_Site="none")[0].status, 403)

    def test_a_websocket_works_in_both_forms(self):
        box = self.start(WEB, 8004)
        self.expose(box, 8004)
        browser, program = self.open(box, 8004)
        for target, host, cookie in ((program.path, f"127.0.0.1:{program.port}", ""), ("/", browser.netloc, f"Cookie: {browser.query}\r\nOrigin: http://{browser.netloc}\r\n")):
            client = connect(program.port)
            key = base64.b64encode(os.urandom(16)).decode()
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
                           f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{cookie}\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.assertIn(b"101", head.split(b"\r\n")[0])
            wanted = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
            self.assertIn(wanted, head)
            frame = b"\x82\xfe" + struct.pack(">H", 1000) + bytes(4) + os.urandom(1000)
            client.sendall(frame)
            got = b""
            while len(got) < len(frame):
                got += client.recv(4096)
            self.assertEqual(got, frame)
            client.close()

    def test_a_port_nobody_listens_on_is_a_bad_gateway_that_says_so(self):
        box = self.create()
        _, program = self.open(box, 8005)
        answer, content = self.ask(program.port, program.path)
        self.assertEqual(answer.status, 502)
        self.assertIn(b"8005", content)
        self.destroy(box)
        self.assertEqual(self.ask(program.port, program.path)[0].status, 403)

    def test_an_answer_before_the_request_has_been_read_ends_it_and_nothing_else(self):
        box = self.start(HASTY)
        self.expose(box, 8007)
        _, program = self.open(box, 8007)
        client = connect(program.port)
        client.sendall(f"POST {program.path}early HTTP/1.1\r\nHost: 127.0.0.1:{program.port}\r\nContent-Length: 10000000\r\n\r\nx".encode())
        got = client.recv(4096)
        while not got.endswith(b"\r\n\r\nno"):
            got += client.recv(4096)
        self.assertIn(b"413", got)
        with self.assertRaises(OSError):  # what is sent still is taken for a while, and then no more
            while True:
                client.sendall(b"x" * 65536)
        client.close()
        self.assertEqual(self.ask(program.port, program.path)[0].status, 200)

    def test_a_server_that_answers_with_nonsense_or_switches_protocols_unasked_is_a_bad_gateway(self):
        box = self.start(HASTY)
        self.expose(box, 8007)
        _, program = self.open(box, 8007)
        for path in ("switch", "noise", "drop"):
            self.assertEqual(self.ask(program.port, program.path + path)[0].status, 502, path)

    def test_what_must_not_be_done_twice_is_sent_once(self):
        box = self.start(HASTY)
        self.expose(box, 8007)
        _, program = self.open(box, 8007)
        client = http.client.HTTPConnection("127.0.0.1", program.port, timeout=20)
        self.assertEqual(self.ask(program.port, program.path, client=client)[1], b"ok")
        self.assertEqual(self.ask(program.port, program.path + "drop", method="DELETE", client=client)[0].status, 502)
        self.assertEqual(self.sh("grep -c ^DELETE seen", sandbox_id=box), "1\n")

    def test_a_client_that_has_gone_is_noticed_while_the_server_inside_is_silent(self):
        box = self.start(SILENT)
        self.expose(box, 8008)
        _, program = self.open(box, 8008)
        for path, body, resets in (("poll", "", False), ("poll-reset", "", True), ("stream", "", False), ("post", "body", False),
                                   ("post-reset", "body", True)):
            with self.subTest(path):
                client = connect(program.port)
                client.sendall(f"{'POST' if body else 'GET'} {program.path}{path} HTTP/1.1\r\nHost: 127.0.0.1:{program.port}\r\n"
                               f"Content-Length: {len(body)}\r\n\r\n".encode())
                if body:
                    client.sendall(body.encode())
                if path == "stream":
                    self.assertIn(b"200", client.recv(4096))
                else:
                    self.sh(f"until grep -qsx /{path} began; do sleep 0.01; done", sandbox_id=box)
                if resets:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                self.sh(f"until grep -qsx /{path} ended; do sleep 0.01; done", sandbox_id=box, timeout_s=20)

    def test_the_next_request_may_come_before_the_answer_to_the_last(self):
        box = self.start(WEB, 8009)
        self.expose(box, 8009)
        _, program = self.open(box, 8009)
        request = f"%s {program.path}%s HTTP/1.1\r\nHost: 127.0.0.1:{program.port}\r\n%s\r\n"
        client = connect(program.port)
        client.sendall("".join((request % ("GET", "one", ""), request % ("POST", "two", "Content-Length: 3\r\n") + "abc",
                                request % ("GET", "three", "Connection: close\r\n"))).encode())
        self.assertEqual(re.findall(rb'"path": "([^"]*)", "method": "([^"]*)"', read_all(client)),
                         [(b"/one", b"GET"), (b"/two", b"POST"), (b"/three", b"GET")])
        client.close()

    def test_slow_and_broken_requests_hold_nobody_up(self):
        box = self.start(WEB, 8006)
        self.expose(box, 8006)
        _, program = self.open(box, 8006)
        slow = [connect(program.port) for _ in range(50)]
        for client in slow:
            client.sendall(b"GET / HTTP/1.1\r\nHost: ")
        self.assertEqual(self.ask(program.port, program.path)[0].status, 200)
        for bad in (b"\0\0\0", b"GET / HTTP/1.1\nHost: a\n\n", b"GET  / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", b"x" * 100_000,
                    f"POST {program.path} HTTP/1.1\r\nHost: 127.0.0.1:{program.port}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode()):
            client = connect(program.port)
            client.sendall(bad)
            client.shutdown(socket.SHUT_WR)
            try:
                self.assertRegex(read_all(client), rb"^(HTTP/1.1 [45]\d\d |$)")
            except ConnectionResetError:
                pass
            client.close()
        for client in slow:
            client.close()


if __name__ == "__main__":
    unittest.main()
