"""Secrets that code in a sandbox can use and never sees, through the real proxy, in a network of the test's own."""
import base64
import glob
import json
import os
import shutil
import unittest

import network
from egress_case import EgressCase
from image_case import BUSYBOX, busybox_entries, entry, folder, link, program_entries, tar_of
from mirror import GIT, Mirror, repository
from ordinary_user import OrdinaryUser
from sandbox_case import call, wait_for

API, OTHER = "api.example.org", "other.example.org"
CANARY = "canary-4f1d9a7c-never-seen-inside"
BASIC, QUERY = "user:canary-basic-7d1e55aa", "canary-query-91ab33cc"


class SecretsCase(EgressCase):
    """Profiles with secrets of the host API, which the sandbox cls.box has."""
    allow = (API, OTHER)

    @classmethod
    def setUpClass(cls):
        network.skip_when_impossible()
        super().setUpClass()
        for name, address in ((API, "203.0.113.20"), (OTHER, "203.0.113.21")):
            cls.net.dns[name] = address
        cls.net.serve_tls([API, OTHER])
        done = call(cls.client, "sandbox_create", profile="with-secrets", allow=[OTHER, "control.example.org"])
        assert not done.is_error, done.text
        cls.box = done.structured["sandbox_id"]

    @classmethod
    def server(cls, *args, **options):
        os.makedirs(cls.home, exist_ok=True)
        config, key = os.path.join(cls.home, "..", os.path.basename(cls.home) + ".yaml"), os.path.join(cls.home, "..", os.path.basename(cls.home) + ".key")
        cls.addClassCleanup(lambda: [os.path.exists(f) and os.remove(f) for f in (config, key)])
        with open(key, "w", encoding="utf-8") as f:
            f.write(QUERY + "\n")
        names = ["TOKEN", "LOGIN", "PUSH", "KEY", "BROKEN"]
        with open(config, "w", encoding="utf-8") as f:
            json.dump({"egress": {"ca_file": cls.net.ca.certificate},
                       "secrets": {"TOKEN": {"env": "THE_CANARY", "hosts": [API]},
                                   "LOGIN": {"command": ["printf", BASIC], "hosts": [API], "form": "basic"},
                                   "PUSH": {"env": "THE_CANARY", "hosts": [f"{GIT}:8443"], "form": "basic"},
                                   "KEY": {"file": key, "hosts": [API], "form": "query", "parameter": "key"},
                                   "BROKEN": {"command": ["sh", "-c", "echo canary-of-broken; exit 3"], "hosts": [API], "form": "header", "header": "X-Broken"}},
                       "profiles": {"with-secrets": {"secrets": names}, "of-a-user": {"secrets": names, "user": "1000:1000"}}}, f)
        options["env"] = {**(options.get("env") or {}), "THE_CANARY": CANARY, "HUTCH_CONFIG": config}
        return super().server(*args, **options)

    def asked(self):
        return [r for r in self.net.requests[self._requests:] if r["host"] in (API, OTHER)]

    def curl(self, arguments):
        return self.exec(f"curl -sS -m 60 {arguments}")

    def assert_put_in(self, **arguments):
        """The value is on the wire and nowhere in a sandbox that is made like this, which is given."""
        box = self.create(**{"profile": "with-secrets", **arguments})
        self._requests = len(self.net.requests)
        done = self.exec(f"echo $TOKEN; curl -sS -m 60 -H \"Authorization: Bearer $TOKEN\" https://{API}/", box)
        self.assertEqual(done["exit_code"], 0, done)
        inside, answer = done["stdout"].split("\n", 1)
        self.assertRegex(inside, "^hutch-secret-TOKEN-[0-9a-f]{32}$")
        self.assertEqual([r["headers"]["authorization"] for r in self.asked()], [f"Bearer {CANARY}"])
        self.assertNotIn(CANARY, answer)
        return box


class Secrets(SecretsCase):
    def test_the_value_goes_to_its_host_alone_and_inside_there_is_a_placeholder(self):
        inside = self.sh("echo $TOKEN", sandbox_id=self.box).strip()
        self.assertRegex(inside, "^hutch-secret-TOKEN-[0-9a-f]{32}$")
        self.curl(f"-H \"Authorization: Bearer $TOKEN\" https://{API}/v1?x=1")
        asked, = self.asked()
        headers = {k.lower(): v for k, v in dict(asked["headers"]).items()}
        self.assertEqual((asked["host"], asked["path"], headers["authorization"]), (API, "/v1?x=1", f"Bearer {CANARY}"))
        # To another allowed host the placeholder goes as it is, and so it does in a body, and in another header.
        self._requests = len(self.net.requests)
        self.exec(f"curl -sSk -m 60 -H \"Authorization: Bearer $TOKEN\" https://{OTHER}/")
        self.curl(f"-d \"token=$TOKEN\" -H \"X-Other: $TOKEN\" https://{API}/post")
        text = json.dumps(self.asked(), default=repr)
        self.assertEqual(len(self.asked()), 2)
        self.assertIn(inside, text)
        self.assertNotIn(CANARY, text)

    def test_basic_and_query_are_replaced_where_their_form_says(self):
        self.curl(f"-u \"$LOGIN:\" 'https://{API}/a'")
        self.curl(f"\"https://{API}/b?key=$KEY&other=$KEY\"")
        first, second = self.asked()
        sent = {k.lower(): v for k, v in dict(first["headers"]).items()}["authorization"]
        self.assertIn(BASIC, base64.b64decode(sent.split()[1]).decode())
        self.assertIn(f"key={QUERY}", second["path"])
        self.assertNotIn(f"other={QUERY}", second["path"])

    def test_what_a_host_echoes_is_masked(self):
        said = self.curl(f"-i -H \"Authorization: Bearer $TOKEN\" https://{API}/echo")
        self.assertNotIn(CANARY, json.dumps(said))
        self.assertEqual(len(self.asked()), 1)

    def test_a_secret_whose_command_fails_sends_nothing_and_says_nothing_of_its_output(self):
        said = self.curl(f"-i -H \"X-Broken: $BROKEN\" https://{API}/broken")
        self.assertNotIn("canary-of-broken", json.dumps(said))
        self.assertEqual(self.asked(), [])

    def test_a_canary_is_found_nowhere_but_in_its_request(self):
        self.curl(f"-H \"Authorization: Bearer $TOKEN\" https://{API}/once")
        found = self.sh("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c canary- ; grep -rslF canary- / --include='*' --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr 2>/dev/null | head; true", sandbox_id=self.box)
        self.assertEqual(found.split(), ["0"])
        info = json.dumps(self.ok("sandbox_info", sandbox_id=self.box))
        for word in (CANARY, BASIC, QUERY):
            self.assertNotIn(word, info)
            for path in glob.glob(f"{self.home}/**/*", recursive=True):
                if os.path.isfile(path) and os.path.getsize(path) < 8 << 20:
                    with open(path, "rb") as f:
                        self.assertNotIn(word.encode(), f.read(), path)
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/cmdline", "rb") as f:
                        self.assertNotIn(word.encode(), f.read() if int(pid) != os.getpid() else b"", pid)
                except OSError:
                    pass
        self.assertEqual(os.stat(f"{self.home}/ca/key.pem").st_mode & 0o777, 0o600)
        wait_for("the request was seen", lambda: self.asked())
        self.assertEqual(sum(CANARY in json.dumps(r, default=repr) for r in self.asked()), 1)

    def test_without_a_filtered_network_a_profile_with_secrets_makes_no_sandbox(self):
        self.assertIn("filtered", self.refused("sandbox_create", profile="with-secrets", network="none"))

    @unittest.skipUnless(shutil.which("git", path="/usr/local/bin:/usr/bin:/bin"), "git is not installed")
    def test_git_logs_in_with_one(self):
        root = self.data_folder()
        repository(root)
        self.net.dns[GIT] = "203.0.113.22"
        mirror = Mirror(self.net.internet.listen("203.0.113.22", 8443), self.net.ca.context([GIT]), root, password=CANARY)
        self.addCleanup(mirror.end)
        url = f"https://x-access-token:$PUSH@{GIT}:8443/tiny.git"
        done = self.exec(f"cd /tmp && git clone -q {url} && cd tiny && git fetch -q && cat answer.txt && "
                         "grep -c hutch-secret-PUSH .git/config")
        self.assertEqual((done["stdout"], done["refused"]), ("42\n1\n", []), done)
        done = self.exec(f"GIT_TERMINAL_PROMPT=0 git ls-remote https://x-access-token:wrong@{GIT}:8443/tiny.git")
        self.assertNotEqual(done["exit_code"], 0)

    def test_commands_that_are_not_roots_have_them(self):
        box = self.assert_put_in(profile="of-a-user")
        self.assertEqual(self.sh("id -u", sandbox_id=box), "1000\n")

    @unittest.skipUnless(shutil.which("runsc"), "needs runsc (gVisor)")
    def test_a_sandbox_with_a_kernel_of_its_own_has_them(self):
        self.assert_put_in(runtime="runsc")


# What images have where certificates are looked for: nothing that hutch or a program there should believe or trip over.
RUBBISH = (folder("etc/ssl"), folder("etc/ssl/certs"), entry("etc/ssl/certs/ca-certificates.crt", b"no certificate\n", mode=0o600),
           link("etc/ssl/cert.pem", "certs/ca-certificates.crt"), link("etc/pki", "/proc/self/root/etc"), folder("var"),
           link("var/run", "/run"))
DANGLING = (link("etc/ssl", "../nothing/here"), folder("etc/pki"), folder("etc/pki/tls"), link("etc/pki/tls/certs", "/etc/ssl"),
            link("run", "var/run"), folder("var"), folder("var/run"))


@unittest.skipUnless(os.path.exists(BUSYBOX) and shutil.which("curl"), "needs busybox-static and curl")
class InImages(SecretsCase):
    """The authority does not depend on what a root file system has."""

    def image(self, name, more=()):
        path = os.path.join(self.home, f"{name}.tar")
        with open(path, "wb") as f:
            f.write(tar_of([*busybox_entries(more), *program_entries(shutil.which("curl"))]))
        done = self.hutch("image", "import", path, "--name", name)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(self.hutch, "image", "rm", name)
        return name

    def test_without_any_certificates(self):
        box = self.assert_put_in(image=self.image("bare"))
        self.sh("test ! -e /etc/ssl", sandbox_id=box)

    def test_with_others_that_are_no_good(self):
        self.assert_put_in(image=self.image("rubbish", RUBBISH))

    def test_with_links_that_lead_nowhere(self):
        self.assert_put_in(image=self.image("dangling", DANGLING))

    def test_for_commands_that_are_not_roots(self):
        self.assert_put_in(image=self.image("users"), profile="of-a-user")

    @unittest.skipUnless(shutil.which("runsc"), "needs runsc (gVisor)")
    def test_with_a_kernel_of_its_own(self):
        self.assert_put_in(image=self.image("guarded", DANGLING), runtime="runsc")


class OfAnOrdinaryUsersServer(OrdinaryUser, InImages):
    test_with_a_kernel_of_its_own = test_for_commands_that_are_not_roots = None  # which take root

    def test_in_the_hosts_programs(self):
        self.assert_put_in()


if __name__ == "__main__":
    unittest.main()
