"""`hutch bench`: that it measures what it says and says what it could not. No test asserts a speed."""
import json
import os
import re
import shutil
import unittest

from sandbox_case import HutchCase, leaks, skip_when_impossible

RELAY = """
import os, socket, sys, threading
target = int(open(sys.argv[2] + "/config").read().removeprefix("to "))
def pass_on(a, b):
    while data := a.recv(65536): b.sendall(data)
    b.shutdown(socket.SHUT_WR)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    a = listener.accept()[0]
    b = socket.create_connection(("127.0.0.1", target))
    for ends in (a, b), (b, a): threading.Thread(target=pass_on, args=ends).start()
"""
PERCENTILES = ("p50", "p90", "p99", "max")


class Bench(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def bench(self, *only, peers=None):
        """(finished process, result) of a quick run."""
        out = os.path.join(self.home, "result.json")
        more = []
        if peers is not None:
            more = ["--peers", os.path.join(self.home, "peers.json")]
            with open(more[1], "w") as f:
                json.dump(peers, f)
        # Folders of its own have to be inside ours, so that one that stays is seen.
        done = self.hutch("bench", "--quick", "--only", ",".join(only), "--json", out, *more,
                          env=self.env(TMPDIR=self.home))
        result = None
        if os.path.exists(out):
            with open(out) as f:
                result = json.load(f)
            os.remove(out)
        self.assertEqual([n for n in os.listdir(self.home) if n.startswith("hutch-bench")], [])
        return done, result

    def in_order(self, summary):
        times = [summary[p] for p in PERCENTILES]
        self.assertEqual(times, sorted(times))
        self.assertGreater(times[0], 0)
        self.assertGreater(summary["n"], 0)

    def test_calls_are_measured_both_ways_and_nothing_stays(self):
        done, result = self.bench("ping", "exec_true", "read_4k")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([e["name"] for e in result["scenarios"]], ["ping", "exec_true", "read_4k"])
        for entry in result["scenarios"]:
            with self.subTest(entry["name"]):
                self.assertNotIn("failed", entry)
                for mode in ("spaced", "burst"):
                    self.in_order(entry[mode])
                self.assertGreaterEqual(entry["burst"]["cpu_ms"], 0)
                self.assertIn(entry["name"], done.stdout)
        self.assertEqual((result["floors"], result["peers"]), ([], []))
        for field in ("cpu", "cores", "kernel", "cgroup"):
            self.assertIn(field, result["machine"])
        leaks.wait_clean(self.before, self.home)

    def test_a_sandbox_says_whether_it_was_warm(self):
        done, result = self.bench("hit_ratio")
        self.assertEqual(done.returncode, 0, done.stderr)
        steady = result["scenarios"][0]["steady"]
        self.in_order(steady)
        self.assertEqual(steady["n"], 40)  # 20 a second for two seconds
        self.assertAlmostEqual(steady["hit_ratio"], steady["warm"] / 40)

    def test_a_call_is_measured_alone_and_beside_a_bad_neighbour(self):
        done, result = self.bench("neighbour")
        self.assertEqual(done.returncode, 0, done.stderr)
        entry = result["scenarios"][0]
        self.assertNotIn("failed", entry)
        for figures in (entry, entry["quiet"]):
            self.in_order(figures["spaced"])
            self.in_order(figures["burst"])
        self.assertRegex(done.stdout, r"(?m)^neighbour / without it +[\d.]+ +[\d.]+$")
        leaks.wait_clean(self.before, self.home)

    def test_a_create_from_a_template_is_measured_in_turn_with_one_without(self):
        done, result = self.bench("from_template")
        self.assertEqual(done.returncode, 0, done.stderr)
        entry = result["scenarios"][0]
        self.assertNotIn("failed", entry)
        other, = entry["beside"]
        for figures in (entry, other):
            self.in_order(figures["spaced"])
            self.in_order(figures["burst"])
        self.assertEqual(entry["spaced"]["n"], other["spaced"]["n"])
        self.assertRegex(done.stdout, r"(?m)^from_template / without +[\d.]+ +[\d.]+$")
        self.assertRegex(done.stdout, r"(?m)^from_template \(without\) ")
        leaks.wait_clean(self.before, self.home)

    def in_turn(self, entry, *others):
        """A scenario's figures, those of the others, and what each but host loopback added to that."""
        self.assertNotIn("failed", entry)
        self.assertEqual([o["what"] for o in entry["beside"]], [*others])
        for figures in (entry, *entry["beside"]):
            for mode in ("spaced", "burst"):
                self.in_order(figures[mode])
                self.assertEqual(figures[mode]["n"], entry[mode]["n"])
                if figures.get("what") == "host loopback":
                    self.assertNotIn("added", figures)
                else:
                    self.assertEqual((figures["added"]["to"], figures["added"][mode]["n"]), ("host loopback", entry[mode]["n"]))

    def test_a_port_is_measured_in_turn_with_the_hosts_loopback_and_with_relays(self):
        relay = {"name": "relay", "kind": "relay", "config": "to {target}", "argv": [shutil.which("python3"), "-c", RELAY, "{listen}", "{folder}"]}
        done, result = self.bench("port_request", "port_connect", "port_url_request", "port_stream", peers=[relay])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((len(result["scenarios"]), result["peers"]), (4, []))
        for entry in result["scenarios"]:
            with self.subTest(entry["name"]):
                self.in_turn(entry, "host loopback", "relay")
        self.assertEqual(result["scenarios"][3]["bytes"], 128 << 20)
        for row in (r"port_connect, to host loopback +-?[\d.]+ +-?[\d.]+ +-?[\d.]+ +-?[\d.]+", r"port_stream \(relay\) +[\d.]+ +[\d.]+",
                    r"port_url_request / relay +[\d.]+ +[\d.]+"):
            self.assertRegex(done.stdout, f"(?m)^{row}$")
        leaks.wait_clean(self.before, self.home)

    def test_the_proxy_is_measured_by_one_client_inside_and_outside(self):
        done, result = self.bench("egress")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([e["name"] for e in result["scenarios"]], ["egress_connect", "egress_request"])
        for entry in result["scenarios"]:
            with self.subTest(entry["name"]):
                self.in_turn(entry, "host loopback")
        leaks.wait_clean(self.before, self.home)

    def test_a_command_is_measured_with_a_network_in_turn_with_one_without(self):
        done, result = self.bench("exec_filtered")
        self.assertEqual(done.returncode, 0, done.stderr)
        entry = result["scenarios"][0]
        self.assertEqual((entry["added"]["to"], [o["what"] for o in entry["beside"]]), ("network none", ["network none"]))
        self.in_order(entry["spaced"])

    def test_a_relay_that_does_not_listen_is_named_with_what_it_said(self):
        done, result = self.bench("port_connect", peers=[
            {"name": "broken", "kind": "relay", "argv": [shutil.which("sh"), "-c", "echo no port {listen} >&2; exit 3"]}])
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(result["scenarios"][0]["failed"], r"sh does not listen on port (\d+).*no port \1")

    def test_a_fork_says_what_file_system_it_was_measured_on(self):
        done, result = self.bench("fork_8")
        self.assertEqual(done.returncode, 0, done.stderr)
        entry = result["scenarios"][0]
        self.assertRegex(entry["what"], r"8 copies of a sandbox with 200 MiB of files \(.+\)")
        self.assertEqual((entry["copies"], type(entry["shares_blocks"])), (8, bool))
        self.in_order(entry["spaced"])

    def test_an_unknown_name_is_refused_with_the_known_ones(self):
        done, result = self.bench("pong")
        self.assertNotEqual(done.returncode, 0)
        for word in ("'pong'", "ping", "create_cold", "floor_clone"):
            self.assertIn(word, done.stderr)
        self.assertIsNone(result)

    def test_peers_are_measured_missing_or_failed_but_never_made_up(self):
        shell = shutil.which("sh")
        done, result = self.bench("peer", peers=[
            {"name": "absent", "missing": "not on this machine"},
            {"name": "broken", "kind": "command", "measures": "exec", "argv": [shell, "-c", "echo why >&2; exit 3"]},
            {"name": "no-such", "kind": "command", "measures": "exec", "argv": ["no-such-program-at-all"]},
            {"name": "mute", "kind": "mcp", "start": True, "argv": [shell, "-c", "echo words; exit 1"]},
            {"name": "good", "kind": "command", "measures": "exec", "argv": [shell, "-c", "test $X = 1"],
             "env": {"X": "1"}}])
        self.assertEqual(done.returncode, 1, done.stderr)
        peers = {p["name"]: p for p in result["peers"]}
        self.assertEqual(peers["absent"], {"name": "absent", "missing": "not on this machine"})
        for name, words in (("broken", "exit code 3.*why"), ("no-such", "not in PATH"), ("mute", "ended without an answer")):
            self.assertRegex(peers[name]["failed"], re.compile(words, re.S))
            self.assertNotIn("figures", peers[name])
            self.assertRegex(done.stdout, f"FAILED {name}")
        self.assertIn("missing absent: not on this machine", done.stdout)
        self.in_order(peers["good"]["figures"][0]["spaced"])

    def test_a_wrong_peers_file_is_refused_by_entry(self):
        for peers, words in (({}, "no JSON list"), ([{"name": "x"}], "peer 'x' has no text 'kind'"), ([[]], "peer number 1"),
                             ([{"name": "x", "kind": "command", "measures": "exec", "argv": []}], "'argv'")):
            done, result = self.bench("peer", peers=peers)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)
            self.assertIsNone(result)


if __name__ == "__main__":
    unittest.main()
