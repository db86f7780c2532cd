"""Images that tests build byte by byte, registries that serve them, and the base of the tests that use them."""
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tarfile
import threading

from sandbox_case import SLOW, HutchCase, wait_for

BUSYBOX = "/bin/busybox"  # of Debian's busybox-static
APPLETS = ("sh", "cat", "echo", "id", "ls", "stat", "pwd", "env", "mkdir", "sleep")
MANIFEST, CONFIG, LAYER = (f"application/vnd.oci.image.{kind}" for kind in ("manifest.v1+json", "config.v1+json", "layer.v1.tar"))


def entry(name, content=None, kind=tarfile.REGTYPE, mode=0o755, **more):
    """A member of a tar: (header, content)."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, mode
    info.size = len(content or b"")
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def folder(name, mode=0o755, **more):
    return entry(name, kind=tarfile.DIRTYPE, mode=mode, **more)


def link(name, target, kind=tarfile.SYMTYPE):
    return entry(name, kind=kind, linkname=target)


def tar_of(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def busybox_entries(more=(), shell=True):
    with open(BUSYBOX, "rb") as file:
        program = file.read()
    applets = [a for a in APPLETS if shell or a != "sh"]
    return [folder("bin"), folder("etc"), entry("bin/busybox", program),
            *(link(f"bin/{name}", "busybox") for name in applets),
            entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1234:1234:app:/srv:/bin/sh\n", mode=0o644),
            entry("etc/group", b"root:x:0:\napp:x:1234:\n", mode=0o644), *more]


def program_entries(path):
    """A program of the host with the libraries that it loads, each where it is looked for."""
    said = subprocess.run(["ldd", path], check=True, capture_output=True, text=True, timeout=60).stdout
    files = sorted({path, *re.findall(r"(/\S+) \(0x", said)})
    folders = {str(parent) for file in files for parent in pathlib.Path(file).parents[:-1]}

    def content(file):
        with open(file, "rb") as opened:
            return opened.read()
    return [*(folder(f[1:]) for f in sorted(folders)), *(entry(f[1:], content(f)) for f in files)]


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def oci_layout(path, layers, config=None, compress=False):
    """Writes an OCI layout of one image at `path`; returns the digest of its manifest."""
    blobs = os.path.join(path, "blobs", "sha256")
    os.makedirs(blobs)

    def blob(data, media_type):
        digest = sha256(data)
        with open(os.path.join(blobs, digest[7:]), "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def as_json(value, media_type):
        return blob(json.dumps(value).encode(), media_type)

    about = as_json({"os": "linux", "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
                     "config": config or {}, "rootfs": {"type": "layers", "diff_ids": [sha256(l) for l in layers]}}, CONFIG)
    stored = [blob(gzip.compress(l, 1, mtime=0), LAYER + "+gzip") if compress else blob(l, LAYER) for l in layers]
    manifest = as_json({"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": stored}, MANIFEST)
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    for name, value in (("index.json", {"schemaVersion": 2, "manifests": [manifest]}), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with open(os.path.join(path, name), "w") as file:
            json.dump(value, file)
    return manifest["digest"]


def skopeo(*words):
    done = subprocess.run(["skopeo", "--insecure-policy", *words], capture_output=True, text=True, timeout=60 * SLOW)
    assert done.returncode == 0, done.stderr
    return done.stdout


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def docker_registry(work, htpasswd=""):
    """Debian's docker-registry; gives HOST:PORT. `htpasswd`: a file of users, who must then log in."""
    port = free_port()
    config = os.path.join(work, "registry.yml")
    auth = {"auth": {"htpasswd": {"realm": "test", "path": htpasswd}}} if htpasswd else {}
    with open(config, "w") as file:  # JSON is YAML
        json.dump({"version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}},
                   "storage": {"filesystem": {"rootdirectory": os.path.join(work, "registry")}},
                   "http": {"addr": f"127.0.0.1:{port}"}, **auth}, file)
    with open(os.path.join(work, "registry.log"), "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def answers():
        assert process.poll() is None, open(os.path.join(work, "registry.log")).read()
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for("the registry answers", answers, 20)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class MadeUpRegistry:
    """Serves one OCI layout under any name, and misbehaves when told to: `lies` maps digests to what is sent instead
    of the blob, `endless` and `stuck` are digests of blobs that never come to an end. Counts requests."""

    def __init__(self, layout):
        self.lies, self.endless, self.stuck = {}, set(), set()
        self.requests, self.asked = [], threading.Event()  # asked: somebody waits for a stuck blob
        self.go_on = threading.Event()
        with open(os.path.join(layout, "index.json")) as file:
            self.manifest = json.load(file)["manifests"][0]["digest"]
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                registry.requests.append(self.path)
                word = self.path.split("/")[-1]
                if self.path == "/v2/":
                    return self.answer(b"{}", "application/json")
                digest = registry.manifest if "/manifests/" in self.path and not word.startswith("sha256:") else word
                try:
                    with open(os.path.join(layout, "blobs", "sha256", digest[7:]), "rb") as file:
                        data = file.read()
                except OSError:
                    return self.answer(b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}', "application/json", 404)
                data = registry.lies.get(digest, data)
                kind = MANIFEST if "/manifests/" in self.path else "application/octet-stream"
                if digest in registry.endless or digest in registry.stuck:
                    return self.never_end(digest, data)
                return self.answer(data, kind)

            def answer(self, data, kind, status=200):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Docker-Content-Digest", sha256(data))
                self.end_headers()
                if self.command != "HEAD":
                    with contextlib.suppress(ConnectionError):  # whoever is told to stop hangs up
                        self.wfile.write(data)

            def never_end(self, digest, data):
                self.close_connection = True
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.end_headers()
                with contextlib.suppress(OSError):
                    if digest in registry.stuck:
                        self.wfile.write(data[:100])
                        registry.asked.set()
                        registry.go_on.wait(60 * SLOW)
                        self.wfile.write(data[100:])
                    noise = os.urandom(1 << 16)  # which skopeo cannot make smaller
                    while digest in registry.endless:
                        self.wfile.write(noise)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.endless.clear()
        self.go_on.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class ImageCase(HutchCase):
    """A data folder, a folder for what the tests build, and a configuration in it."""
    settings = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for program in ("skopeo", "umoci", "docker-registry"):
            assert shutil.which(program), f"apt-get install {program}"
        assert os.path.exists(BUSYBOX), "apt-get install busybox-static"
        cls.work = HutchCase.data_folder.__func__(cls)  # wherever that one lies

    def config(self, *insecure, **settings):
        """The path of a configuration with these settings of images."""
        path = os.path.join(self.work, f"{self.id()}.yaml")
        with open(path, "w") as file:
            json.dump({"images": {"insecure_registries": list(insecure), **settings}}, file)
        return path

    def place(self, name):
        return os.path.join(self.work, f"{self.id().rsplit('.', 1)[-1]}-{name}")

    def layout(self, entries, name="layout", **options):
        """(path, digest) of an OCI layout of one layer."""
        path = self.place(name)
        return path, oci_layout(path, [tar_of(entries)], **options)

    def write(self, name, data):
        with open(self.place(name), "wb") as file:
            file.write(data)
        return self.place(name)

    def image(self, *words, config=None, **options):
        return self.hutch("image", "--json", *(["--config", config] if config else []), *words, **options)

    def made(self, *words, **options):
        """The answer of a command that must succeed."""
        done = self.image(*words, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def refused(self, *words, **options):
        """What is said by one that must not, and that leaves nothing of an image."""
        done = self.image(*words, **options)
        self.assertEqual((done.returncode, done.stdout), (125, ""), done.stderr)
        self.assert_nothing_half_made()
        return done.stderr

    def images(self):
        return self.made("ls")["images"]

    def assert_nothing_half_made(self):
        hidden = [f for f in os.listdir(f"{self.home}/images") if f.startswith(".work")] if os.path.exists(f"{self.home}/images") else []
        drafts = [f for f in os.listdir(f"{self.home}/layers") if f.startswith(".")] if os.path.exists(f"{self.home}/layers") else []
        self.assertEqual((hidden, drafts), ([], []))

    @contextlib.contextmanager
    def files_of(self, image):
        """The folder with the image's files, as they lie on its disk."""
        layer = f"{self.home}/layers/{image['layer']}"
        if not os.path.exists(f"{layer}/disk"):
            yield f"{layer}/files/root"
            return
        target = os.path.join(self.work, "mounted")
        os.makedirs(target, exist_ok=True)
        subprocess.run(["mount", "-o", "ro,loop,nosuid,nodev", f"{layer}/disk", target], check=True, timeout=30 * SLOW)
        try:
            yield f"{target}/root"
        finally:
            subprocess.run(["umount", target], check=True, timeout=30 * SLOW)

    def tearDown(self):
        for image in self.images():
            self.made("rm", image["digest"])
        self.assertEqual(os.listdir(f"{self.home}/layers") if os.path.exists(f"{self.home}/layers") else [], [])
