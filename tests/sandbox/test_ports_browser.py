"""Web pages served inside sandboxes, in a real browser: they work, and nobody else's page reaches them."""
import http.server
import json
import socket
import threading
import unittest
import urllib.parse

import browser
from browser import Browser, BrowserError
from sandbox_case import SandboxCase

PORT = 8000

# Writes a line for each request it gets: what never came to it is not there.
SERVER = r"""
import base64, hashlib, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
    def note(self):
        with open('seen', 'a') as seen: seen.write(f"{self.command} {self.path} [{self.headers.get('Cookie', '')}]\n")
    def do_GET(self):
        self.note()
        if self.headers.get('Upgrade') == 'websocket': return self.websocket()
        if self.path.startswith('/page'): return self.answer(open('page.html').read())
        self.answer('data of ' + open('name').read())
    def do_POST(self):
        self.note()
        self.answer('<title>posted</title>' + self.rfile.read(int(self.headers['Content-Length'])).decode())
    def answer(self, text):
        self.send_response(200); self.send_header('Content-Length', len(text)); self.send_header('Content-Type', 'text/html')
        if 'private' in self.path: self.send_header('Referrer-Policy', 'no-referrer')
        self.end_headers(); self.wfile.write(text.encode())
    def websocket(self):
        key = self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        self.send_response(101); self.send_header('Upgrade', 'websocket'); self.send_header('Connection', 'Upgrade')
        self.send_header('Sec-WebSocket-Accept', base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()); self.end_headers()
        while (head := self.rfile.read(2)) and head[0] & 15 != 8:  # short frames, each with its mask
            mask, data = self.rfile.read(4), self.rfile.read(head[1] & 127)
            self.wfile.write(bytes([head[0], len(data)]) + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))
        self.close_connection = True
http.server.ThreadingHTTPServer(('127.0.0.1', 8000), Handler).serve_forever()
"""

PAGE = """<!doctype html>
<title>loading</title>
<form id="form" method="post" action="/form"><input name="word" value="sent"></form>
<script>
if (opener) opener.postMessage("loaded", "*");
window.ready = (async () => {
  const data = await (await fetch("/data")).text();
  window.webSocket = new WebSocket(`ws://${location.host}/socket`);
  const echo = await new Promise((good, bad) => {
    webSocket.onopen = () => webSocket.send(data);
    webSocket.onmessage = message => good(message.data);
    webSocket.onerror = () => bad(new Error("no WebSocket"));
  });
  if (echo !== data) throw new Error(echo);
  document.title = "done";
})();
</script>
"""

# What a page can try to get at another one; each tells what it could read.
ATTEMPTS = """({
  fetch: (url, options) => fetch(url, {credentials: "include", ...options}).then(
    async answer => answer.type === "opaque" ? "nothing" : `${answer.status} ${await answer.text()}`, () => "nothing"),
  frame: (url, form) => new Promise(done => {
    const frame = document.createElement("iframe");
    frame.name = `frame ${frames.length}`;
    if (!form) frame.src = url;
    document.body.append(frame);  // an empty one has loaded by then
    frame.onload = () => {
      try { done(frame.contentWindow.document.body.innerText); } catch (error) { done("nothing"); }
    };
    if (!form) return;
    const sent = document.createElement("form");
    Object.assign(sent, {method: "post", action: url, target: frame.name});
    document.body.append(sent);
    sent.submit();
  }),
  image: url => new Promise(done => {
    const image = new Image();
    image.onload = () => done("an image");
    image.onerror = () => done("nothing");
    image.src = url;
  }),
  socket: url => new Promise(done => {
    const socket = new WebSocket(url.replace(/^http/, "ws"));
    socket.onopen = () => done("a WebSocket");
    socket.onerror = () => done("nothing");
  }),
  window: url => new Promise(done => {
    addEventListener("message", () => {
      try { done(opened.document.title); } catch (error) { done("nothing"); } finally { opened.close(); }
    });
    const opened = open(url);
  }),
})"""


class Quiet(http.server.BaseHTTPRequestHandler):
    """A web server of somebody else's, with an empty page."""
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><body></body>")


class BrowserCase(SandboxCase):
    @classmethod
    def setUpClass(cls):
        if not browser.program():
            raise unittest.SkipTest("no browser: install chromium-headless-shell")
        super().setUpClass()
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        super().tearDownClass()

    def serve(self, name):
        """A sandbox with a web server that listens, and its URLs; `name` is what its data tells."""
        box = self.ok("sandbox_create")["sandbox_id"]
        self.addCleanup(lambda: self.ok("sandbox_destroy", sandbox_id=box))
        for path, content in (("server.py", SERVER), ("page.html", PAGE), ("name", name)):
            self.ok("sandbox_write_file", sandbox_id=box, path=path, content=content)
        self.ok("sandbox_exec", sandbox_id=box, argv=["python3", "server.py"], background=True)
        own = self.ok("sandbox_expose_port", sandbox_id=box, port=PORT)["url"]
        return box, own, self.ok("sandbox_port_url", sandbox_id=box, port=PORT)

    def page(self):
        page = self.browser.page()
        self.addCleanup(page.close)
        return page

    def opened(self, page, urls):
        """Opens the page by the URL that the user gets; its origin."""
        url = urllib.parse.urlsplit(urls["url"])
        page.open(url._replace(path="/page").geturl())
        self.assertEqual(self.title(page), "done")
        return f"http://{url.netloc}"

    def somebody_else(self):
        """The port of another web server on this machine."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(lambda: (server.shutdown(), thread.join(), server.server_close()))
        return server.server_port

    def title(self, page):
        return page.run("ready.then(() => document.title)")

    def seen(self, box):
        return self.sh("cat seen", sandbox_id=box)

    def attempt(self, page, kind, url, *more):
        return page.run(f"{ATTEMPTS}.{kind}({', '.join(map(json.dumps, (url, *more)))})")

    def assert_shut(self, page, url):
        """No script of this page reads anything there, however it asks."""
        for kind, more in (("fetch", {"mode": "cors"}), ("fetch", {"mode": "no-cors"}), ("fetch", {"mode": "no-cors", "method": "POST", "body": "x"}),
                           ("fetch", {"headers": {"X-Own": "x"}}), ("frame", None), ("frame", True), ("image", None), ("socket", None)):
            with self.subTest(url=url, by=kind, more=more):
                self.assertEqual(self.attempt(page, kind, url, more), "nothing")


class Works(BrowserCase):
    def test_a_page_with_a_websocket_works_through_a_port_of_its_own(self):
        _, own, _ = self.serve("one")
        page = self.page()
        page.open(own + "page")
        self.assertEqual(self.title(page), "done")
        page.leave("form.submit()")
        self.assertEqual(page.run("document.title + document.body.innerText"), "postedword=sent")

    def test_a_page_works_on_an_origin_of_its_own_and_the_token_is_seen_by_nobody(self):
        box, _, urls = self.serve("one")
        page = self.page()
        origin = self.opened(page, urls)
        token = urllib.parse.urlsplit(urls["url"]).query
        self.assertEqual(page.run("location.href"), origin + "/page")
        self.assertEqual(page.run("document.cookie"), "")
        cookie, = page.cookies()
        self.assertEqual((f"{cookie['name']}={cookie['value']}", cookie["httpOnly"], cookie["sameSite"], cookie["session"], cookie["domain"]),
                         (token, True, "Lax", True, f"{PORT}-{box}.localhost"))
        self.assertNotIn(token, page.run("document.referrer + performance.getEntries().map(entry => entry.name).join()"))
        page.leave("location.reload()")
        self.assertEqual(self.title(page), "done")
        page.leave("form.submit()")
        self.assertEqual(page.run("document.title + document.body.innerText"), "postedword=sent")
        page.open(origin + "/page")
        self.assertEqual(self.title(page), "done")
        seen = self.seen(box)
        self.assertEqual(seen.count("GET /page []\n"), 3, seen)
        self.assertEqual(seen.count("GET /socket []\n"), 3, seen)
        self.assertIn("POST /form []\n", seen)
        self.assertNotIn("hutch_token", seen)

    def test_a_page_that_sends_no_referrer_can_still_send_its_forms(self):
        # Its Origin is "null" then: Fetch, "append a request Origin header".
        _, _, urls = self.serve("one")
        page = self.page()
        origin = self.opened(page, urls)
        page.open(origin + "/page-private")
        page.leave("form.submit()")
        self.assertEqual(page.run("document.title"), "posted")

    def test_without_the_token_or_with_a_wrong_one_the_browser_is_refused(self):
        box, _, urls = self.serve("one")
        token = urllib.parse.urlsplit(urls["url"]).query
        page = self.page()
        for query in ("", token[:-1] + ("0" if token[-1] != "0" else "1"), token[:-1], "hutch_token="):
            page.open(urls["url"].replace(token, query))
            self.assertEqual((page.status(), page.cookies()), (403, []), query)
        self.assertEqual(self.seen_or_nothing(box), "")

    def test_a_closed_port_is_closed_for_pages_that_are_open(self):
        _, own, urls = self.serve("one")
        page, other = self.page(), self.page()
        origin = self.opened(page, urls)
        other.open(own + "page")
        self.title(other)
        for each in (page, other):
            each.run("window.over = new Promise(done => webSocket.onclose = () => done('over')), 0")
        self.ok("sandbox_close_port", sandbox_id=urls["sandbox_id"], port=PORT)
        for each in (page, other):
            self.assertEqual(each.run("over"), "over")
        for url in (origin + "/page", urls["url"]):
            page.open(url)
            self.assertEqual(page.status(), 403)
        with self.assertRaisesRegex(BrowserError, "ERR_CONNECTION_REFUSED"):
            other.open(own + "page")

    def seen_or_nothing(self, box):
        return self.sh("cat seen 2>/dev/null || true", sandbox_id=box)


class KeptApart(BrowserCase):
    def test_a_page_reads_nothing_of_another_sandbox(self):
        (_, _, mine), (box, own, others) = self.serve("one"), self.serve("two")
        page = self.page()
        origin = self.opened(page, others)  # the browser has both cookies
        self.opened(page, mine)
        self.assertEqual(page.run("fetch('/data').then(answer => answer.text())"), "data of one")
        before = self.seen(box)
        self.assert_shut(page, origin + "/forged")
        self.assertEqual(self.seen(box), before)
        # As a page of its own it is shown, for that the user can follow links; it cannot be read.
        self.assertEqual(self.attempt(page, "window", origin + "/page"), "nothing")
        # A port of its own has no token: requests reach it, but what it answers stays unread.
        self.assertEqual(self.attempt(page, "fetch", own + "data", {}), "nothing")
        self.assertEqual(self.attempt(page, "frame", own + "data"), "nothing")

    def test_the_urls_for_programs_are_shut_to_every_page(self):
        box, _, urls = self.serve("one")
        other_box, _, other = self.serve("two")
        page = self.page()
        page.open(urls["path_url"] + "page")
        self.assertEqual(page.status(), 403)
        self.opened(page, urls)
        before = self.seen(box)
        self.assert_shut(page, urls["path_url"] + "forged")
        self.assertEqual(self.seen(box), before)
        self.assert_shut(page, other["path_url"] + "forged")
        self.assertEqual(self.sh("test ! -e seen", sandbox_id=other_box), "")

    def test_pages_of_other_sites_reach_nothing_with_the_users_cookie(self):
        box, _, urls = self.serve("one")
        port = self.somebody_else()
        page = self.page()
        origin = self.opened(page, urls)
        before = self.seen(box)
        # Cookies know no ports: to a server on the same name the browser would send ours along.
        for host in ("127.0.0.1", "localhost", "other.localhost", f"{PORT}-{box}.localhost"):
            page.open(f"http://{host}:{port}/")
            self.assert_shut(page, origin + "/forged")
            self.assertEqual(self.seen(box), before, host)

    @unittest.skipUnless(socket.has_dualstack_ipv6(), "this machine has no IPv6")
    def test_nobody_can_listen_where_the_browser_looks_first(self):
        # *.localhost is ::1 before it is 127.0.0.1: who had that port there would be given the token.
        _, _, urls = self.serve("one")
        with self.assertRaises(OSError), socket.socket(socket.AF_INET6) as thief:
            thief.bind(("::1", urllib.parse.urlsplit(urls["url"]).port))


if __name__ == "__main__":
    unittest.main()
