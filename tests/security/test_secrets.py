"""Secrets that code in a sandbox can use and never sees, through the real proxy, in a network of the test's own."""
import glob
import json
import os
import unittest

import network
from egress_case import EgressCase
from sandbox_case import call, wait_for

API, OTHER = "api.example.org", "other.example.org"
CANARY = "canary-4f1d9a7c-never-seen-inside"
BASIC, QUERY = "user:canary-basic-7d1e55aa", "canary-query-91ab33cc"


class Secrets(EgressCase):
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
        with open(config, "w", encoding="utf-8") as f:
            json.dump({"egress": {"ca_file": cls.net.ca.certificate},
                       "secrets": {"TOKEN": {"env": "THE_CANARY", "hosts": [API]},
                                   "LOGIN": {"command": ["printf", BASIC], "hosts": [API], "form": "basic"},
                                   "KEY": {"file": key, "hosts": [API], "form": "query", "parameter": "key"},
                                   "BROKEN": {"command": ["sh", "-c", "echo canary-of-broken; exit 3"], "hosts": [API], "form": "header", "header": "X-Broken"}},
                       "profiles": {"with-secrets": {"secrets": ["TOKEN", "LOGIN", "KEY", "BROKEN"]}}}, f)
        options["env"] = {**(options.get("env") or {}), "THE_CANARY": CANARY, "HUTCH_CONFIG": config}
        return super().server(*args, **options)

    def asked(self):
        return [r for r in self.net.requests[self._requests:] if r["host"] in (API, OTHER)]

    def curl(self, arguments):
        return self.exec(f"curl -sS -m 60 {arguments}")

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
        import base64
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


if __name__ == "__main__":
    unittest.main()
