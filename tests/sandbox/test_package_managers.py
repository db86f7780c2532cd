"""pip, npm and git as they are, in a filtered sandbox that may reach their mirrors and nothing else."""
import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import unittest
import zipfile

from egress_case import EgressCase
from mirror import GIT, Mirror, repository

MIRROR = "203.0.113.20"
INDEX, WHEELS, REGISTRY = "pypi.example.org", "wheels.example.org", "npm.example.org"
FILES = "files.example.org"
PATH = "/usr/local/bin:/usr/bin:/bin"  # inside
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


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def tarball(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as t:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            t.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


class PackageManagers(EgressCase):
    allow = (INDEX, WHEELS, REGISTRY, GIT, FILES)

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
                  f'<a href="https://{WHEELS}/{WHEEL}#sha256={sha256(made)}">{WHEEL}</a>'.encode())
        package = {"name": "tiny-pkg", "version": "1.0.0", "main": "index.js"}
        packed = tarball({"package/package.json": json.dumps(package), "package/index.js": "module.exports = 42;\n"})
        cls.write(f"{REGISTRY}/tiny-pkg/-/tiny-pkg-1.0.0.tgz", packed)
        dist = {"tarball": f"https://{REGISTRY}/tiny-pkg/-/tiny-pkg-1.0.0.tgz", "shasum": hashlib.sha1(packed).hexdigest(),
                "integrity": "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()}
        cls.write(f"{REGISTRY}/tiny-pkg/index.html", json.dumps({
            "name": "tiny-pkg", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {**package, "dist": dist}}}).encode())
        repository(cls.root)

    def uses(self, program, command, *hosts):
        """The output of a command in a sandbox that may reach these hosts alone, which it all does and no other."""
        if not shutil.which(program, path=PATH):
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
        if not shutil.which("git", path=PATH):
            self.skipTest("git is not installed")
        mirror = Mirror(self.net.internet.listen(MIRROR, 8080), None, self.root)
        self.addCleanup(mirror.end)
        box = self.create(allow=[f"{GIT}:8080"])
        done = self.exec(f"git clone -q http://{GIT}:8080/tiny.git && cat tiny/answer.txt; curl -s -o /dev/null http://{GIT}/", box)
        self.assertEqual((done["stdout"], [r["port"] for r in done["refused"]]), ("42\n", [80]), done)
        self.assertIn((GIT, "/tiny.git/git-upload-pack"), mirror.asked)

    def plain(self):
        """The port of a mirror without TLS."""
        mirror = Mirror(self.net.internet.listen(MIRROR, 0), None, self.root)
        self.addCleanup(mirror.end)
        return mirror.socket.getsockname()[1]

    @classmethod
    def deb(cls):
        """A flat repository with one package."""
        about = "Package: tiny-pkg\nVersion: 1.0\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: the answer\n"
        cls.write("deb/DEBIAN/control", about.encode())
        cls.write("deb/usr/share/tiny-pkg/answer", b"42\n")
        os.makedirs(f"{cls.root}/{FILES}/deb")
        made = f"{cls.root}/{FILES}/deb/tiny.deb"
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", f"{cls.root}/deb", made], check=True, capture_output=True, timeout=60)
        with open(made, "rb") as f:
            data = f.read()
        cls.write(f"{FILES}/deb/Packages", (about + f"Filename: ./tiny.deb\nSize: {len(data)}\nSHA256: {sha256(data)}\n\n").encode())

    def test_apt_updates_its_lists_and_downloads(self):
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            self.skipTest("apt is not installed")
        self.deb()
        port = self.plain()
        box = self.create(allow=[f"{FILES}:{port}"])
        done = self.exec(f"mkdir -p /etc/apt && echo 'deb [trusted=yes] http://{FILES}:{port}/deb ./' > /etc/apt/sources.list && "
                         "apt-get update -q && apt-get download -q tiny-pkg && dpkg-deb -x tiny-pkg_*.deb . && cat usr/share/tiny-pkg/answer", box)
        self.assertEqual((done["exit_code"], done["stdout"][-3:], done["refused"]), (0, "42\n", []), done)

    def test_what_fetches_files_gets_them_and_says_when_it_may_not(self):
        port = self.plain()
        self.write(f"{FILES}/answer", b"42\n")
        box = self.create(allow=[f"{FILES}:{port}"])
        urllib = "python3 -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode(), end=str())' "
        for program, command in ("curl", "curl -sS "), ("wget", "wget -nv -O - "), ("python3", urllib):
            if not shutil.which(program, path=PATH):
                continue
            with self.subTest(program):
                self.assertEqual(self.exec(f"{command} http://{FILES}:{port}/answer", box)["stdout"], "42\n")
                done = self.exec(f"{command} https://evil.example.org/", box)
                self.assertNotEqual(done["exit_code"], 0)
                self.assertRegex(done["stderr"], "403|Forbidden")
                self.assertEqual([r["rule"] for r in done["refused"]], ["evil.example.org"])

    def test_fetch_of_node_goes_by_the_proxy_or_nowhere(self):
        if not shutil.which("node", path=PATH):
            self.skipTest("Node is not installed")
        port = self.plain()
        self.write(f"{FILES}/answer", b"42\n")
        box = self.create(allow=[f"{FILES}:{port}"])
        done = self.exec(f"node -e 'fetch(\"http://{FILES}:{port}/answer\").then(r => r.text()).then(t => console.log(\"got\", t), "
                         "e => console.log(e.cause.code))'", box)
        # From 22.21 and 24 on it heeds NODE_USE_ENV_PROXY, older ones never look for a proxy.
        self.assertRegex(done["stdout"], "^(got 42|EAI_AGAIN|ENOTFOUND)")
        self.assertEqual(self.left()[1], {FILES} if done["stdout"].startswith("got") else set())

    def test_what_is_missing_for_a_download_is_said_and_can_be_added(self):
        if not shutil.which("pip3", path=PATH):
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
