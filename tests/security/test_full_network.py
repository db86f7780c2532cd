"""The network `full`: every public address and nothing else, in a network of the test's own that answers everywhere."""
import contextlib
import glob
import os
import shutil
import signal
import socket
import threading
import unittest

import leaks
import network
from image_case import BUSYBOX, busybox_entries, program_entries, tar_of
from ordinary_user import USER, OrdinaryUser
from sandbox_case import SandboxCase, call, wait_for

PUBLIC4, PUBLIC6 = "203.0.113.10", "2001:db8:2::10"
# One address or more of each range that is not public.
SPECIAL4 = ("0.1.2.3", "10.0.0.1", "10.255.255.254", "100.64.0.1", "100.100.100.200", "169.254.169.254", "169.254.170.2",
            "172.16.0.1", "172.31.255.254", "192.0.0.192", "192.0.2.1", "192.0.2.9", "192.168.0.1", "192.168.255.254",
            "198.18.0.1", "198.19.255.254", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255")
SPECIAL6 = ("fd00:ec2::254", "fc00::1", "fd68:7574:6368::1", "fd68:7574:6368::9", "fe80::1", "febf::1", "fec0::1", "ff02::1",
            "ff05::2", "ff0e::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1",
            "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:a00:1::1", "100::1", "::2")

# Runs inside: what becomes of a connection or a datagram, in words.
TRY = r'''
import json, socket, struct, sys
BINDTODEVICE, UNICAST_IF, UNICAST_IF6 = 25, 50, 76
def family(to): return socket.AF_INET6 if ":" in to else socket.AF_INET
def connect(to, port, prepare=lambda s: None, timeout=1):
    with socket.socket(family(to), socket.SOCK_STREAM) as s:
        s.settimeout(timeout)
        try:
            prepare(s)
            s.connect((to, port))
        except OSError as e: return e.strerror or str(e)
        return "connected"
def send(to, port, prepare=lambda s: None):
    with socket.socket(family(to), socket.SOCK_DGRAM) as s:
        try:
            prepare(s)
            s.sendto(b"canary", (to, port))
        except OSError as e: return e.strerror or str(e)
        return "sent"
def by_card(s): s.setsockopt(socket.SOL_SOCKET, BINDTODEVICE, b"eth0\0")
def by_index(s):
    number = struct.pack("!I", socket.if_nametoindex("eth0"))
    s.setsockopt(*((socket.IPPROTO_IPV6, UNICAST_IF6) if s.family == socket.AF_INET6 else (socket.IPPROTO_IP, UNICAST_IF)), number)
def by_address(s): s.bind(("fd68:7574:6368::2", 0) if s.family == socket.AF_INET6 else ("192.0.2.2", 0))
def by_group(s):
    if s.family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
    else: s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("192.0.2.2"))
def all_of(*steps): return lambda s: [step(s) for step in steps]
def at_once(work, *jobs):
    """work(*job) of each, none waiting for another."""
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(len(jobs)) as pool: return [*pool.map(lambda job: work(*job), jobs)]
'''


def helpers(of):
    """Processes on the host that work for the network of sandboxes, of which of(the folder in /proc) is true."""
    found = []
    for path in glob.glob("/proc/[0-9]*"):
        name = leaks._read(f"{path}/comm").strip()
        if name.startswith(("passt", "pasta", "hutch-network")) and of(path):
            found.append((name, int(path.split("/")[2])))
    return sorted(found)


class NetworkCase(SandboxCase):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("pasta"):
            raise unittest.SkipTest("needs pasta: apt-get install passt")
        cls.net = cls.enterClassContext(network.TestNetwork())
        cls.net.dns["files.example.org"] = [PUBLIC4, PUBLIC6]
        cls.net.dns["inside.example.org"] = ["10.1.2.3", "fd00:ec2::254"]
        cls.net.serve_http()
        cls.furnish()
        super().setUpClass()

    @classmethod
    def furnish(cls):
        """What the machine needs besides."""

    def helpers(self, box):
        return helpers(lambda path: box in leaks._read(f"{path}/cgroup"))

    @classmethod
    def server(cls, *args, **options):
        return super().server(*args, under=cls.net.host.enter, **options)

    def create(self, **arguments):
        box = self.ok("sandbox_create", **arguments)
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=box["sandbox_id"])
        return box["sandbox_id"]

    def tries(self, box, code):
        """What the code prints, which has the functions of TRY."""
        return self.python(TRY + code, sandbox_id=box)

    def leaving(self):
        """What left the host since it was asked last."""
        everything = self.net.seen()
        new = everything[getattr(self, "_seen", 0):]
        self._seen = len(everything)
        return set(new)


class OfAUser(OrdinaryUser):
    """Before a NetworkCase: one of an ordinary user, who has no cgroups."""

    @classmethod
    def furnish(cls):
        cls.net.host.run("mount", "-t", "tmpfs", "-o", "mode=755,size=4k", "tun", "/dev/net")
        cls.net.host.run("mknod", "-m", "666", "/dev/net/tun", "c", "10", "200")

    def helpers(self, box):
        def is_the_users(path):
            with contextlib.suppress(OSError):
                return os.stat(path).st_uid == USER or f"Uid:\t{USER}" in leaks._read(f"{path}/status")
        return helpers(is_the_users)


class Full(NetworkCase):
    server_settings = {**NetworkCase.server_settings, "HUTCH_EGRESS__CALLERS_MAY_ALLOW": "all"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        done = call(cls.client, "sandbox_create", network="full", name="full")
        assert not done.is_error, done.text
        cls.box = done.structured["sandbox_id"]

    def setUp(self):
        self.leaving()

    def test_public_addresses_answer_by_ipv4_by_ipv6_and_by_name(self):
        for url in (f"http://{PUBLIC4}/a", f"http://[{PUBLIC6}]/b", "http://files.example.org/c"):
            with self.subTest(url):
                self.assertIn('"method": "GET"', self.sh(f"curl -sS -m 20 '{url}'", sandbox_id=self.box))
        self.assertIn(("files.example.org", "A"), self.net.dns.questions)

    def test_udp_goes_there_and_back(self):
        port = self.net.serve_udp_echo(PUBLIC4)
        self.assertEqual(self.tries(self.box, f'''
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(20)
    s.sendto(b"there and back", ("{PUBLIC4}", {port}))
    print(s.recv(100).decode())
'''), "there and back\n")

    def test_a_long_answer_about_a_name_comes_whole(self):
        self.net.dns["many.example.org"] = [f"203.0.113.{n}" for n in range(1, 31)]
        found = self.sh("getent ahostsv4 many.example.org | grep -c STREAM", sandbox_id=self.box)
        self.assertEqual(found, "30\n")

    def test_questions_about_names_by_tcp_are_refused_at_once(self):
        found = self.tries(self.box, 'for to in "192.0.2.3", "fd68:7574:6368::3": print(connect(to, 53, timeout=20))')
        self.assertEqual(found, "Permission denied\n" * 2)

    def test_a_name_that_does_not_exist_is_said_to(self):
        self.assertIn("exit 2", self.sh("getent hosts nothing.example.org; echo exit $?", sandbox_id=self.box))

    def test_addresses_that_are_not_public_are_refused_at_once(self):
        found = self.tries(self.box, f'''
for to in {SPECIAL4 + SPECIAL6!r}:
    print(to, "|", connect(to, 80), "|", send(to, 80))
''')
        for line in found.splitlines():
            to, tcp, udp = line.split(" | ")
            with self.subTest(to):
                self.assertIn(tcp, ("Permission denied", "Network is unreachable", "Invalid argument", "Connection refused"))
                # Groups and neighbours by IPv6 have routes to the card: what goes there is dropped on the way out.
                self.assertNotEqual((udp, to.startswith(("ff", "fe80:"))), ("sent", False))
        self.assertEqual(len(found.splitlines()), len(SPECIAL4 + SPECIAL6))
        self.assert_only_control_left()

    def test_no_option_of_a_socket_leads_past_that(self):
        self.tries(self.box, f'''
for to in {SPECIAL4 + SPECIAL6 + ("127.0.0.1", "::1", network.HOST4, network.HOST6)!r}:
    for prepare in by_card, by_index, by_address, by_group, all_of(by_card, by_address), all_of(by_group, by_address):
        send(to, 80, prepare)
        connect(to, 80, prepare, 0.02)
''')
        self.assert_only_control_left()

    def test_ping_and_raw_packets_reach_no_private_address(self):
        found = self.tries(self.box, '''
for kind, protocol in (socket.SOCK_RAW, 1), (socket.SOCK_RAW, 255), (socket.SOCK_DGRAM, 1):
    try:
        with socket.socket(socket.AF_INET, kind, protocol) as s:
            s.sendto(b"\\x08\\0\\xf7\\xff" + bytes(4), ("10.0.0.1", 0))
            print("sent")
    except OSError as e: print("refused", e.strerror)
''')
        self.assertNotIn("sent", found)
        self.assert_only_control_left()

    def assert_only_control_left(self):
        """A packet to a public address comes after all that was sent before it."""
        self.assertIn("GET", self.sh(f"curl -sS -m 20 http://{PUBLIC4}/control", sandbox_id=self.box))
        control = ("tcp", PUBLIC4, 80)
        wait_for("the control's packets", lambda: control in self.net.seen()[self._seen:])
        self.assertEqual(self.leaving(), {control})

    def test_a_name_that_leads_to_private_addresses_leads_nowhere(self):
        self.assertNotIn("GET", self.sh("curl -sS -m 20 http://inside.example.org/ 2>&1 || true", sandbox_id=self.box))
        self.assertEqual({to for kind, to, _ in self.leaving() if kind == "tcp"}, set())

    def test_the_host_is_not_reached_however_its_address_is_spelled(self):
        port = self.canary()
        spelled = ("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0", "::", "::1", "localhost",
                   "::ffff:127.0.0.1", "::ffff:7f00:1", "192.0.2.1", "192.0.2.2", "192.0.2.3", "fd68:7574:6368::1",
                   "fd68:7574:6368::2", "fd68:7574:6368::3", network.HOST4, network.HOST6, network.HOST_LAN)
        found = self.tries(self.box, f'''
def reach(to, prepare, kind, address):
    with socket.socket(kind, socket.SOCK_STREAM) as s:
        s.settimeout(0.5)
        try:
            prepare(s)
            s.connect(address)
            print(to, "reached", s.recv(100))
        except OSError: pass
at_once(reach, *((to, prepare, kind, address) for to in {spelled!r} for prepare in (lambda s: None, by_card)
                 for kind, _, _, _, address in socket.getaddrinfo(to, {port}, type=socket.SOCK_STREAM)))
''')
        self.assertEqual(found, "")

    def canary(self):
        """The port of a service on every address of the host."""
        sockets = [self.net.host.listen("0.0.0.0", 0)]
        port = sockets[0].getsockname()[1]
        sockets.append(self.net.host.listen("::", port))
        for s in sockets:
            def serve(s=s):
                try:
                    while True:
                        with s.accept()[0] as connection:
                            connection.sendall(b"canary")
                except OSError:
                    return
            threading.Thread(target=serve, daemon=True).start()
            self.addCleanup(s.close)
            self.addCleanup(s.shutdown, socket.SHUT_RDWR)
        reached = self.net.host.run("python3", "-c", f"import socket; print(socket.create_connection(('127.0.0.1', {port})).recv(9))")
        self.assertIn("canary", reached)
        return port

    def test_an_address_that_the_host_gets_later_is_refused_from_then_on(self):
        later, url = "203.0.113.200", "http://203.0.113.200/"
        asks = f"curl -sS -m 20 {url} 2>&1 || true"
        self.assertIn("GET", self.sh(asks, sandbox_id=self.box))
        self.net.host.ip(f"addr add {later}/32 dev wan0")
        self.addCleanup(self.net.host.ip, f"addr del {later}/32 dev wan0")
        wait_for("the address is refused", lambda: "GET" not in self.sh(asks, sandbox_id=self.box))

    def test_sandboxes_do_not_reach_each_other(self):
        other = self.create(network="full")
        self.sh("nohup python3 -m http.server 8000 --bind :: >/dev/null 2>&1 & "
                "until curl -s -o /dev/null http://127.0.0.1:8000/; do sleep 0.1; done", sandbox_id=other)
        found = self.tries(self.box, '''
print(at_once(connect, *((to, 8000, prepare) for prepare in (lambda s: None, by_card)
    for to in ("127.0.0.1", "192.0.2.2", "fd68:7574:6368::2", "198.51.100.2", "2001:db8:1::2", "10.77.0.2"))))
''')
        self.assertNotIn("connected", found)

    def test_it_listens_on_nothing_of_the_host(self):
        before = self.net.host.run("ss", "-Hltn")
        box = self.create(network="full")
        self.sh("nohup python3 -m http.server 8000 >/dev/null 2>&1 & "
                "until curl -s -o /dev/null http://127.0.0.1:8000/; do sleep 0.1; done", sandbox_id=box)
        self.assertEqual(self.net.host.run("ss", "-Hltn"), before)

    def test_nothing_of_it_can_be_undone_from_inside(self):
        for command in ("ip route del prohibit 10.0.0.0/8", "ip route add 10.0.0.0/8 via 192.0.2.1 dev eth0 onlink",
                        "ip route replace default dev lo", "ip link set eth0 down", "ip addr add 10.1.1.1/8 dev eth0",
                        "ip rule add to 10.0.0.0/8 lookup main", "tc qdisc del dev eth0 clsact",
                        "ip neigh replace 10.0.0.1 lladdr 52:54:00:68:75:01 dev eth0", "ip link add dummy0 type dummy",
                        "ip tuntap add dev tap1 mode tap"):
            with self.subTest(command):
                done = self.ok("sandbox_exec", command=command, sandbox_id=self.box)
                self.assertNotEqual(done.get("exit_code"), 0)
        self.assertIn("prohibit 10.0.0.0/8", self.sh("ip route", sandbox_id=self.box))

    def test_its_helpers_are_not_seen_from_inside_and_have_no_power_outside(self):
        wait_for("those of others have ended", lambda: [name[:2] for name, _ in self.helpers(self.box)] == ["hu", "pa"])
        for _, pid in self.helpers(self.box):
            with open(f"/proc/{pid}/status", encoding="utf-8") as f:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
            self.assertNotIn("0", status["Uid"].split())
        names = self.sh("cat /proc/[0-9]*/comm", sandbox_id=self.box)
        self.assertNotIn("passt", names)
        self.assertNotIn("hutch-network", names)

    def test_info_says_what_it_is(self):
        rows = {row["name"]: row for row in self.ok("sandbox_info", sandbox_id=self.box)["isolation"]}
        self.assertTrue(rows["network"]["enforced"])
        self.assertIn("pasta", rows["network"]["detail"])

    def test_it_cannot_be_changed_afterwards_and_that_says_what_to_do(self):
        for change in ({"network": "none"}, {"allow": ["10.0.0.0/8"]}):
            self.assertIn("sandbox_create", self.refused("sandbox_update", sandbox_id=self.box, **change))


class FullOfAUser(OfAUser, Full):
    def test_it_ends_with_its_sandbox(self):
        box = self.ok("sandbox_create", network="full")["sandbox_id"]
        self.assertGreaterEqual(len(self.helpers(box)), 4)
        self.ok("sandbox_destroy", sandbox_id=box)
        wait_for("those of the other one alone are left", lambda: len(self.helpers(box)) == 2)

    def test_where_the_device_for_it_is_roots_alone_that_is_said(self):
        self.net.host.run("chmod", "600", "/dev/net/tun")
        self.addCleanup(self.net.host.run, "chmod", "666", "/dev/net/tun")
        self.assertIn("chmod 666 /dev/net/tun", self.refused("sandbox_create", network="full"))


class Created(NetworkCase):
    server_settings = {**NetworkCase.server_settings, "HUTCH_EGRESS__CALLERS_MAY_ALLOW": "all"}

    def setUp(self):
        self.leaving()

    def test_what_is_allowed_is_reached_and_its_neighbours_are_not(self):
        box = self.create(network="full", allow=["10.5.0.0/16", "fd00:5::/32", network.HOST_LAN])
        self.net.serve_http(8080, namespace=self.net.host)
        for url, reached in (("http://10.5.6.7/", True), ("http://[fd00:5::1]/", True), ("http://10.6.0.1/", False),
                             ("http://[fd00:6::1]/", False), (f"http://{network.HOST_LAN}:8080/", True),
                             (f"http://{network.HOST4}:8080/", False), ("http://169.254.169.254/", False)):
            with self.subTest(url):
                found = self.sh(f"curl -sS -m 20 '{url}' 2>&1 || true", sandbox_id=box)
                self.assertEqual('"method": "GET"' in found, reached, found)

    def test_what_can_never_be_allowed_is_refused(self):
        for wrong in ("127.0.0.1", "127.0.0.0/8", "::1", "::ffff:127.0.0.1", "0.0.0.0", "fe80::1", "ff02::1", "224.0.0.1",
                      "10.0.0.1/8", "example.org", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "", "1.2.3", "fd00::/129",
                      "10.0.0.1\n"):
            with self.subTest(wrong):
                self.assertIn("allow", self.refused("sandbox_create", network="full", allow=[wrong]))

    def test_without_a_network_nothing_is_reached(self):
        box = self.create()
        found = self.tries(box, f'''
for to in {(PUBLIC4, PUBLIC6, "169.254.169.254", "10.0.0.1", "192.0.2.3", network.HOST4)!r}:
    print(connect(to, 80), "|", send(to, 53))
''')
        self.assertEqual(set(found.split("\n")), {"Network is unreachable | Network is unreachable", ""})
        self.assertIn("exit 2", self.sh("getent hosts files.example.org; echo exit $?", sandbox_id=box))
        self.assertEqual(self.leaving(), set())

    def test_allow_without_a_network_is_refused(self):
        self.assertIn("network", self.refused("sandbox_create", network="none", allow=["10.0.0.0/8"]))

    def test_too_little_memory_for_it_is_refused(self):
        self.assertIn("memory", self.refused("sandbox_create", network="full", memory="32m"))

    def test_a_warm_sandbox_gets_it_too(self):
        def ready():
            return self.ok("sandbox_list_profiles")["profiles"][0]["warm"]["ready"]
        self.create()  # the pool begins with the first one
        wait_for("a warm sandbox", ready)
        made = self.ok("sandbox_create", network="full")
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=made["sandbox_id"])
        self.assertTrue(made["warm"])
        self.assertIn("GET", self.sh(f"curl -sS -m 20 http://{PUBLIC4}/", sandbox_id=made["sandbox_id"]))

    def test_it_ends_with_its_sandbox(self):
        box = self.create(network="full")
        self.assertEqual(len(self.helpers(box)), 2)
        self.ok("sandbox_destroy", sandbox_id=box)
        self.assertEqual(self.helpers(box), [])

    def test_its_memory_is_that_of_the_sandbox(self):
        plain, full = self.create(), self.create(network="full")
        use = {b: self.ok("sandbox_info", sandbox_id=b)["memory_bytes"] for b in (plain, full)}
        self.assertGreater(use[full], use[plain] + (8 << 20))

    @unittest.skipUnless(os.path.exists(BUSYBOX), "needs busybox-static")
    def test_an_image_that_knows_nothing_of_networks_gets_it(self):
        path = os.path.join(self.home, "web.tar")
        with open(path, "wb") as f:
            f.write(tar_of([*busybox_entries(), *program_entries(shutil.which("curl"))]))
        self.assertEqual(self.hutch("image", "import", path, "--name", "web").returncode, 0)
        self.addCleanup(self.hutch, "image", "rm", "web")
        box = self.create(network="full", image="web")
        self.assertIn("GET", self.sh("curl -sS -m 20 http://files.example.org/", sandbox_id=box))
        self.assertIn("GET", self.sh("/bin/busybox wget -q -O - http://files.example.org/", sandbox_id=box))

    @unittest.skipUnless(shutil.which("runsc"), "needs runsc (gVisor)")
    def test_gvisor_has_none_and_that_says_what_there_is(self):
        said = self.refused("sandbox_create", network="full", runtime="runsc")
        self.assertIn("the network `full` is not there under runsc", said)
        self.assertIn("`filtered`", said)
        self.assertEqual(self.ok("sandbox_list")["sandboxes"], [])

    def test_without_pasta_it_is_refused_with_what_to_install(self):
        program = os.path.realpath(shutil.which("pasta"))
        self.net.host.run("mount", "--bind", "/dev/null", program)
        self.addCleanup(self.net.host.run, "umount", program)
        self.assertIn("apt-get install passt", self.refused("sandbox_create", network="full"))

    def test_on_a_host_without_a_route_it_is_refused(self):
        for family, gateway in (("-4", "198.51.100.1"), ("-6", "2001:db8:1::1")):
            self.net.host.ip(f"{family} route del default")
            self.addCleanup(self.net.host.ip, f"{family} route add default via {gateway}")
        self.assertIn("no route", self.refused("sandbox_create", network="full"))

    def test_on_a_host_without_ipv6_ipv4_works(self):
        self.net.host.ip("-6 route del default")
        self.addCleanup(self.net.host.ip, "-6 route add default via 2001:db8:1::1")
        box = self.create(network="full")
        self.assertIn("GET", self.sh("curl -sS -m 20 http://files.example.org/", sandbox_id=box))
        self.assertIn("unreachable", self.tries(box, f'print(connect("{PUBLIC6}", 80))'))


class WhoMayHaveIt(NetworkCase):
    """Callers may add public hosts, as it is unless the configuration says otherwise."""
    server_settings = {"HUTCH_POOL__MAX": 0, "HUTCH_PROFILES__OPEN__NETWORK": "full"}

    def denied(self, tool="sandbox_create", **arguments):
        text = self.refused(tool, **arguments)
        self.assertIn("`full` is for the configuration to give", text)
        self.assertIn("egress.callers_may_allow", text)

    def network_of(self, **arguments):
        box = self.create(**arguments)
        return box, bool(self.helpers(box))

    def test_a_caller_has_it_from_a_profile_alone(self):
        self.denied(network="full")
        self.denied(network="full", profile="default", allow=["files.example.org"])
        for arguments in ({"profile": "open"}, {"profile": "open", "network": "full"}):
            box, full = self.network_of(**arguments)
            self.assertTrue(full)
            self.assertIn("GET", self.sh(f"curl -sS -m 20 http://{PUBLIC4}/", sandbox_id=box))

    def test_less_can_always_be_asked_for(self):
        for profile in ("default", "open"):
            for kind in ("filtered", "none"):
                with self.subTest(profile, network=kind):
                    self.assertFalse(self.network_of(profile=profile, network=kind)[1])

    def test_in_a_profile_that_has_it_what_is_not_public_is_still_the_configurations(self):
        self.assertIn("not public", self.refused("sandbox_create", profile="open", allow=["10.5.0.0/16"]))

    def test_where_callers_may_allow_nothing_a_profile_still_gives_it(self):
        settings = {**self.server_settings, "HUTCH_EGRESS__CALLERS_MAY_ALLOW": "none"}
        with self.server("--results", "structured", env=settings) as server:
            self.assertIn("for the configuration to give", call(server, "sandbox_create", network="full").text)
            box = call(server, "sandbox_create", profile="open").structured["sandbox_id"]
            self.assertEqual(len(self.helpers(box)), 2)
            call(server, "sandbox_destroy", sandbox_id=box)

    def test_neither_an_update_nor_a_template_nor_a_fork_is_a_way_round(self):
        plain, opened = self.create(), self.create(profile="open")
        self.assertIn("cannot be changed", self.refused("sandbox_update", sandbox_id=plain, network="full"))
        self.ok("sandbox_create_template", sandbox_id=opened, name="of-open")
        self.addCleanup(self.ok, "sandbox_delete_template", name="of-open")
        self.denied(template="of-open", network="full")
        box, full = self.network_of(template="of-open")  # files come along, and no more
        self.assertFalse(full)
        self.call("sandbox_destroy", sandbox_id=box)
        for source, wanted in ((plain, False), (opened, True)):
            fork, = self.ok("sandbox_fork", sandbox_id=source)["sandboxes"]
            self.addCleanup(self.call, "sandbox_destroy", sandbox_id=fork)
            self.assertEqual(bool(self.helpers(fork)), wanted)

    def test_what_an_earlier_configuration_gave_lives_on_and_is_not_forked(self):
        settings = {**self.server_settings, "HUTCH_EGRESS__CALLERS_MAY_ALLOW": "all"}
        server = self.server("--results", "structured", env=settings)
        box = call(server, "sandbox_create", network="full").structured["sandbox_id"]
        server.kill(signal.SIGKILL)
        server.wait()
        server.close()
        with self.server("--results", "structured", env=self.server_settings) as server:
            done = call(server, "sandbox_exec", sandbox_id=box, command=f"curl -sS -m 20 http://{PUBLIC4}/")
            self.assertIn("GET", done.structured["stdout"])
            self.assertIn("for the configuration to give", call(server, "sandbox_fork", sandbox_id=box).text)
            call(server, "sandbox_destroy", sandbox_id=box)


class ServersThatDie(NetworkCase):
    server_settings = {"HUTCH_POOL__MAX": 0, "HUTCH_EGRESS__CALLERS_MAY_ALLOW": "all"}

    def killed(self, **settings):
        """The sandbox of a server that was killed."""
        server = self.server("--results", "structured", env={**self.server_settings, **settings})
        made = call(server, "sandbox_create", network="full", name="kept")
        self.assertFalse(made.is_error, made.text)
        box = made.structured["sandbox_id"]
        wait_for("two helpers", lambda: len(self.helpers(box)) == 2)
        server.kill(signal.SIGKILL)
        server.wait()
        server.close()
        return box

    def test_when_the_sandbox_of_a_killed_server_ends_nothing_of_its_network_stays(self):
        box = self.killed(HUTCH_SANDBOX__ORPHAN_TTL_S=1)
        wait_for("the helpers are gone", lambda: not self.helpers(box))
        with self.server(env=self.server_settings) as server:  # which removes the folders
            call(server, "sandbox_list")

    def test_the_next_server_takes_it_up_with_its_network(self):
        box = self.killed()
        helpers = self.helpers(box)
        with self.server("--results", "structured", env=self.server_settings) as server:
            done = call(server, "sandbox_exec", sandbox_id=box, command=f"curl -sS -m 20 http://{PUBLIC4}/")
            self.assertIn("GET", done.structured["stdout"])
            self.assertEqual(self.helpers(box), helpers)
            call(server, "sandbox_destroy", sandbox_id=box)
        wait_for("the helpers are gone", lambda: not self.helpers(box))


class ServersOfAUserThatDie(OfAUser, ServersThatDie):
    pass


if __name__ == "__main__":
    unittest.main()
