"""A headless Chromium, spoken with in its DevTools protocol over a pair of pipes: JSON messages, a NUL behind each."""
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time

PROGRAMS = (["chromium-headless-shell"], ["chromium", "--headless=new"])
TIMEOUT = 60


def program():
    """The command that starts it without a window, None when none is installed."""
    return next((command for command in PROGRAMS if shutil.which(command[0])), None)


class BrowserError(Exception):
    pass


def high(fd):
    """The same pipe under a number that the shell below has no use for."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    finally:
        os.close(fd)


class Browser:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="hutch-browser-")
        (commands, self.to), (self.answers, answers) = map(lambda pipe: map(high, pipe), (os.pipe(), os.pipe()))
        options = ["--remote-debugging-pipe", f"--user-data-dir={self.folder}/profile", "--no-first-run", "--disable-gpu",
                   "--disable-background-networking", "--disable-component-update", "--disable-breakpad", "--disable-dev-shm-usage",
                   "--no-proxy-server", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        # It reads from 3 and writes to 4.
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers} {commands}<&- {answers}>&-', "browser", *program(), *options],
            env={"PATH": os.environ["PATH"], "HOME": self.folder, "TMPDIR": self.folder}, pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        os.close(commands)
        os.close(answers)
        self.number, self.part, self.replies, self.events = 0, b"", {}, []

    def command(self, method, session=None, **params):
        """What the browser answers; BrowserError when it refuses."""
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        self.read_until(lambda: number in self.replies, method)
        reply = self.replies.pop(number)
        if "error" in reply:
            raise BrowserError(f"{method}: {reply['error']['message']}")
        return reply["result"]

    def wait_event(self, session, method, wanted=lambda params: True, since=0):
        """The parameters of the first such event from number `since` on, which may have come already."""
        def found():
            return next((e["params"] for e in self.events[since:]
                         if e["method"] == method and e.get("sessionId") == session and wanted(e["params"])), None)
        self.read_until(found, method)
        return found()

    def read_until(self, condition, what):
        end = time.monotonic() + TIMEOUT
        while not condition():
            if not select.select([self.answers], [], [], max(0, end - time.monotonic()))[0]:
                raise BrowserError(f"{what}: nothing came within {TIMEOUT} s")
            data = os.read(self.answers, 1 << 16)
            if not data:
                raise BrowserError(f"{what}: the browser has ended")
            *messages, self.part = (self.part + data).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self.replies[message["id"]] = message
                else:
                    self.events.append(message)

    def page(self):
        """An empty page, with cookies of its own."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        return Page(self, context, self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def close(self):
        if self.process.returncode is not None:
            return
        os.close(self.to)  # its pipe's end is its own
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        try:
            end = time.monotonic() + 10
            while time.monotonic() < end:  # what it has started may outlive it, and write
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.poll()
                time.sleep(0.005)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.answers)
        shutil.rmtree(self.folder)


class Page:
    def __init__(self, browser, context, session):
        self.browser, self.context, self.session = browser, context, session
        self.command("Page.enable")
        self.command("Page.setLifecycleEventsEnabled", enabled=True)

    def command(self, method, **params):
        return self.browser.command(method, self.session, **params)

    def open(self, url):
        """Returns when the page and all that belongs to it has come; BrowserError when nothing answers there."""
        answer = self.command("Page.navigate", url=url)
        if "errorText" in answer:
            raise BrowserError(f"{url}: {answer['errorText']}")
        self.wait_loaded(answer["loaderId"])

    def run(self, code):
        """The value of an expression in the page, or what it promises."""
        answer = self.command("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"]
            raise BrowserError(f"{code}: {thrown.get('exception', {}).get('description', thrown['text'])}")
        return answer["result"].get("value")

    def leave(self, code):
        """An expression that leads to another page; returns when that has come."""
        since = len(self.browser.events)
        self.run(code)
        came = self.browser.wait_event(self.session, "Page.frameNavigated", lambda e: "parentId" not in e["frame"], since)
        self.wait_loaded(came["frame"]["loaderId"])

    def wait_loaded(self, loader):
        self.browser.wait_event(self.session, "Page.lifecycleEvent", lambda e: e["name"] == "load" and e["loaderId"] == loader)

    def status(self):
        return self.run("performance.getEntriesByType('navigation')[0].responseStatus")

    def cookies(self):
        return self.browser.command("Storage.getCookies", browserContextId=self.context)["cookies"]

    def close(self):
        self.browser.command("Target.disposeBrowserContext", browserContextId=self.context)
