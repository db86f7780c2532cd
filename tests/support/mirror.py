"""A web server with the files of several hosts, each in a folder of its name, and git's own answers at one of them."""
import base64
import http.server
import os
import subprocess
import threading

GIT = "git.example.org"


def repository(root):
    """tiny.git at GIT, with one file."""
    def git(*words):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words], cwd=f"{root}/source", check=True,
                       capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    os.makedirs(f"{root}/source")
    with open(f"{root}/source/answer.txt", "w", encoding="utf-8") as f:
        f.write("42\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "The answer")
    git("clone", "-q", "--bare", ".", f"{root}/{GIT}/tiny.git")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder for each host, and at GIT what git itself answers."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def host(self):
        """The one that is asked, which is noted."""
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

    def is_let_in(self):
        if self.server.password is None:
            return True
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        if kind == "Basic" and base64.b64decode(given).decode().endswith(":" + self.server.password):
            return True
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="mirror"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def git(self, body):
        if not self.is_let_in():
            return
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

    def __init__(self, listening, context, root, password=None):
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening if context is None else context.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)
        self.root, self.password, self.asked = root, password, []  # (host, path) of each request
        self.serving = threading.Thread(target=self.serve_forever, daemon=True)
        self.serving.start()

    def end(self):
        self.shutdown()
        self.serving.join()
        self.server_close()

    def handle_error(self, *_):
        pass  # a client that hangs up
