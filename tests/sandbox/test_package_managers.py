"""pip, npm and git as they are, in a filtered sandbox that may reach their mirrors and nothing else."""
import base64
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import unittest
import zipfile

from egress_case import EgressCase

MIRROR = "203.0.113.20"
INDEX, WHEELS, REGISTRY, GIT = "pypi.example.org", "wheels.example.org", "npm.example.org", "git.example.org"
WHEEL = "tiny_pkg-1.0-py3-none-any.whl"
# With which these programs are told of an authority.
AUTHORITY = "export PIP_CERT=/tmp/ca.pem npm_config_cafile=/tmp/ca.pem GIT_SSL_CAINFO=/tmp/ca.pem; "


def wheel():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("tiny_pkg.py", "answer = 42\n")
        z.writestr("tiny_pkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-pkg\nVersion: 1.0\n")
        z.writestr("tiny_pkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr("tiny_pkg-1.0.dist-info/RECORD", "")
    return out.getvalue()


def tarball(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as t:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            t.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder for each host, and at GIT what git itself answers."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def host(self):
        host = self.headers["Host"].split(":")[0]
        self.server.asked.append((host, self.path))
        return host

    def do_GET(self):
        host = self.host()
        if host == GIT:
            return self.git(b"")
        self.directory = f"{self.server.root}/{host}"
        return super().do_GET()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return self.git(body) if self.host() == GIT else self.send_error(404)

    def git(self, body):
        path, _, query = self.path.partition("?")
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, timeout=60, env={
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": f"{self.server.root}/{GIT}", "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", "")})
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


class Mirror(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listening, context, root):
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening if context is None else context.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)
        self.root, self.asked = root, []  # (host, path) of each request
        self.serving = threading.Thread(target=self.serve_forever, daemon=True)
        self.serving.start()

    def end(self):
        self.shutdown()
        self.serving.join()
        self.server_close()

    def handle_error(self, *_):
        pass  # a client that hangs up


class PackageManagers(EgressCase):
    allow = (INDEX, WHEELS, REGISTRY, GIT)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for name in cls.allow:
            cls.net.dns[name] = MIRROR
        cls.root = cls.data_folder()
        cls.furnish()
        cls.mirror = Mirror(cls.net.internet.listen(MIRROR, 443), cls.net.ca.context(cls.allow), cls.root)
        cls.addClassCleanup(cls.mirror.end)

    @classmethod
    def write(cls, path, content):
        os.makedirs(os.path.dirname(f"{cls.root}/{path}"), exist_ok=True)
        with open(f"{cls.root}/{path}", "wb") as f:
            f.write(content)

    @classmethod
    def furnish(cls):
        made = wheel()
        cls.write(f"{WHEELS}/{WHEEL}", made)
        cls.write(f"{INDEX}/simple/tiny-pkg/index.html",
                  f'<a href="https://{WHEELS}/{WHEEL}#sha256={hashlib.sha256(made).hexdigest()}">{WHEEL}</a>'.encode())
        package = {"name": "tiny-pkg", "version": "1.0.0", "main": "index.js"}
        packed = tarball({"package/package.json": json.dumps(package), "package/index.js": "module.exports = 42;\n"})
        cls.write(f"{REGISTRY}/tiny-pkg/-/tiny-pkg-1.0.0.tgz", packed)
        dist = {"tarball": f"https://{REGISTRY}/tiny-pkg/-/tiny-pkg-1.0.0.tgz", "shasum": hashlib.sha1(packed).hexdigest(),
                "integrity": "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()}
        cls.write(f"{REGISTRY}/tiny-pkg/index.html", json.dumps({
            "name": "tiny-pkg", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {**package, "dist": dist}}}).encode())
        cls.repository()

    @classmethod
    def repository(cls):
        def git(*words):
            subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words], cwd=f"{cls.root}/work", check=True,
                           capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        cls.write("work/answer.txt", b"42\n")
        git("init", "-q")
        git("add", ".")
        git("commit", "-qm", "The answer")
        git("clone", "-q", "--bare", ".", f"{cls.root}/{GIT}/tiny.git")

    def uses(self, program, command, *hosts):
        """The output of a command in a sandbox that may reach these hosts alone, which it all does and no other."""
        if not shutil.which(program, path="/usr/local/bin:/usr/bin:/bin"):
            self.skipTest(f"{program} is not installed")
        box = self.with_authority(self.create(allow=[*hosts]))
        del self.mirror.asked[:]
        done = self.exec(AUTHORITY + command, box)
        self.assertEqual((done.get("exit_code"), done["refused"]), (0, []), done)
        self.assertEqual({host for host, _ in self.mirror.asked}, {*hosts})
        self.assertEqual(self.left(), ({("tcp", MIRROR, 443)}, {*hosts}))
        return done["stdout"]

    def test_pip_downloads(self):
        out = self.uses("pip3", f"pip3 download -q --index-url https://{INDEX}/simple tiny-pkg && python3 -c 'import sys; "
                        f"sys.path.insert(0, \"{WHEEL}\"); import tiny_pkg; print(tiny_pkg.answer)'", INDEX, WHEELS)
        self.assertEqual(out, "42\n")

    def test_npm_installs(self):
        out = self.uses("npm", f"npm install --silent --registry https://{REGISTRY}/ tiny-pkg && node -p 'require(\"tiny-pkg\")'", REGISTRY)
        self.assertTrue(out.endswith("42\n"), out)

    def test_git_clones(self):
        out = self.uses("git", f"git clone -q https://{GIT}/tiny.git && cat tiny/answer.txt && git -C tiny fetch -q", GIT)
        self.assertEqual(out, "42\n")

    def test_git_clones_without_tls(self):
        if not shutil.which("git", path="/usr/local/bin:/usr/bin:/bin"):
            self.skipTest("git is not installed")
        mirror = Mirror(self.net.internet.listen(MIRROR, 8080), None, self.root)
        self.addCleanup(mirror.end)
        box = self.create(allow=[f"{GIT}:8080"])
        done = self.exec(f"git clone -q http://{GIT}:8080/tiny.git && cat tiny/answer.txt; curl -s -o /dev/null http://{GIT}/", box)
        self.assertEqual((done["stdout"], [r["port"] for r in done["refused"]]), ("42\n", [80]), done)
        self.assertIn((GIT, "/tiny.git/git-upload-pack"), mirror.asked)

    def test_what_is_missing_for_a_download_is_said_and_can_be_added(self):
        if not shutil.which("pip3", path="/usr/local/bin:/usr/bin:/bin"):
            self.skipTest("pip3 is not installed")
        box = self.with_authority(self.create(allow=[INDEX]))
        download = AUTHORITY + f"pip3 download -q --retries 0 --index-url https://{INDEX}/simple tiny-pkg"
        done = self.exec(download, box)
        self.assertNotEqual(done["exit_code"], 0)
        self.assertEqual({(r["host"], r["port"], r["rule"]) for r in done["refused"]}, {(WHEELS, 443, WHEELS)})
        self.ok("sandbox_update", sandbox_id=box, allow=[WHEELS])
        self.assertEqual(self.exec(download, box)["exit_code"], 0)


if __name__ == "__main__":
    unittest.main()
