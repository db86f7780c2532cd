"""Whatever comes in: a clear error, the server goes on, nothing is lost or left behind.

Broken JSON-RPC is tested in tests/protocol; this is about arguments, files and a host that lacks something."""
import os
import shutil
import subprocess
import tempfile
import unittest

from mcp_client import Client, RpcError
from sandbox_case import HUTCH, HutchCase, SandboxCase, call, leaks, skip_when_impossible


class Arguments(SandboxCase):
    results = "text"

    def test_all_problems_are_named_at_once(self):
        text = self.refused("sandbox_exec", command=7, timeout_s="soon", colour="red")
        for word in ("timeout_s", "colour"):
            self.assertIn(word, text)

    def test_a_missing_argument_is_named(self):
        self.assertIn("content", self.refused("sandbox_write_file", path="x"))
        self.assertIn("command", self.refused("sandbox_exec"))

    def test_a_misspelt_argument_gets_the_right_spelling(self):
        self.assertIn("timeout_s", self.refused("sandbox_exec", command="true", timeout=5))

    def test_a_number_in_quotes_is_taken(self):
        self.ok("sandbox_exec", command="true", timeout_s="5")

    def test_out_of_range_values_name_the_range(self):
        self.assertIn("3600", self.refused("sandbox_exec", command="true", timeout_s=100_000))
        self.refused("sandbox_exec", command="true", timeout_s=-1)
        self.refused("sandbox_create", memory="12 parsecs")
        self.refused("sandbox_create", pids=0)
        self.refused("sandbox_create", cpus=-2)

    def test_command_and_argv_together_are_refused(self):
        self.refused("sandbox_exec", command="true", argv=["true"])

    def test_an_unknown_tool_is_a_protocol_error(self):
        with self.assertRaises(RpcError) as caught:
            self.client.call_tool("sandbox_exce", {})
        self.assertEqual(caught.exception.code, -32602)

    def test_arguments_that_are_no_object_are_refused_and_the_server_goes_on(self):
        for arguments in ([], "x", 5):
            try:
                result = self.client.request("tools/call", {"name": "sandbox_exec", "arguments": arguments})
                self.assertTrue(result["isError"])
            except RpcError as error:
                self.assertEqual(error.code, -32602)
        self.client.ping()

    def test_an_unknown_sandbox_names_the_live_ones(self):
        self.ok("sandbox_create", name="alive-one")
        for tool, more in (("sandbox_exec", {"command": "true"}), ("sandbox_info", {}),
                           ("sandbox_read_file", {"path": "x"}), ("sandbox_list_files", {})):
            with self.subTest(tool):
                text = self.refused(tool, sandbox_id="sbx-000000000000", **more)
                self.assertIn("sbx-000000000000", text)
                self.assertIn("alive-one", text)

    def test_strange_ids_are_refused_and_touch_nothing(self):
        canary = os.path.join(self.home, "canary")
        with open(canary, "w") as f:
            f.write("untouched")
        for strange in ("../../x", "a/b", "..", ".", "", " ", "a\0b", "x" * 4096, "%2e%2e", "sbx-١٢", "*x",
                        "../canary", "$(id)", "a\nb"):
            with self.subTest(strange[:20]):
                if strange:  # an empty id may mean that it was left out
                    self.refused("sandbox_exec", sandbox_id=strange, command="true")
                    self.ok("sandbox_list")
                self.refused("sandbox_create", name=strange or "\0")
        with open(canary) as f:
            self.assertEqual(f.read(), "untouched")

    def test_names_with_surprises_in_env_and_workdir_are_refused(self):
        self.refused("sandbox_exec", command="true", env={"A=B": "c"})
        self.refused("sandbox_exec", command="true", env={"A": "x\0y"})
        self.refused("sandbox_exec", command="true", workdir="/nowhere/at/all")
        self.refused("sandbox_exec", argv=["no-such-program-at-all"])
        self.refused("sandbox_exec", argv=[])

    def test_a_name_in_use_is_a_conflict(self):
        self.ok("sandbox_create", name="taken")
        self.assertIn("taken", self.refused("sandbox_create", name="taken"))

    def test_an_unknown_profile_names_the_known_ones(self):
        self.assertIn("default", self.refused("sandbox_create", profile="nope"))

    def test_errors_say_what_to_try(self):
        for text in (self.refused("sandbox_read_file", path="/workspace/missing"),
                     self.refused("sandbox_create", memory="1k"),
                     self.refused("sandbox_exec", command="true", sandbox_id="nope")):
            self.assertGreater(len(text.splitlines()), 1, text)


class Files(SandboxCase):
    def test_a_folder_read_as_a_file_is_refused(self):
        self.sh("mkdir -p folder")
        self.assertIn("director", self.refused("sandbox_read_file", path="folder").lower())
        self.refused("sandbox_write_file", path="folder", content="x")
        self.refused("sandbox_edit_file", path="folder", edits=[{"old_str": "a", "new_str": "b"}])

    def test_a_file_listed_as_a_folder_is_refused(self):
        self.sh("echo 1 > plain")
        self.refused("sandbox_write_file", path="plain/below", content="x")

    def test_a_missing_file_is_named_with_the_working_folder(self):
        text = self.refused("sandbox_read_file", path="nowhere.txt")
        self.assertIn("/workspace", text)

    def test_binary_files_come_as_base64_and_do_not_break_the_stream(self):
        self.sh("head -c 3000 /dev/urandom > random; printf '\\377\\376\\0' > odd")
        self.assertEqual(self.ok("sandbox_read_file", path="random")["encoding"], "base64")
        self.assertEqual(self.ok("sandbox_read_file", path="odd", encoding="base64")["size"], 3)
        self.refused("sandbox_edit_file", path="random", edits=[{"old_str": "a", "new_str": "b"}])

    def test_invalid_utf8_and_nul_in_output_are_replaced_not_fatal(self):
        done = self.ok("sandbox_exec", command="printf 'a\\377\\376b\\0c\\033[31m'")
        self.assertIn("a", done["stdout"])
        self.assertIn("b", done["stdout"])
        self.client.ping()

    def test_a_line_without_end_is_bounded(self):
        done = self.ok("sandbox_exec", command="head -c 50M /dev/zero | tr '\\0' x")
        self.assertTrue(done["truncated"])
        self.assertLess(len(done["stdout"]), 64_000)

    def test_fifos_devices_and_endless_files_do_not_hang(self):
        self.sh("mkfifo pipe")
        for path in ("pipe", "/dev/zero", "/dev/tty", "/proc/self/mem", "/proc/kmsg"):
            with self.subTest(path):
                result = self.call("sandbox_read_file", path=path, _timeout=10)
                self.assertTrue(result.is_error, result.text)
        self.assertTrue(self.call("sandbox_write_file", path="pipe", content="x", _timeout=10).is_error)

    def test_an_empty_file_is_read_and_edited(self):
        self.ok("sandbox_write_file", path="empty", content="")
        self.assertEqual(self.ok("sandbox_read_file", path="empty")["size"], 0)

    def test_a_symlink_to_a_host_file_resolves_inside_the_sandbox(self):
        with tempfile.NamedTemporaryFile("w", dir=self.home, suffix=".canary") as canary:
            canary.write("host canary")
            canary.flush()
            self.sh(f"ln -s {canary.name} link; ln -s /proc/1/root{canary.name} link2; "
                    f"ln -s ../../../../../../../..{canary.name} link3; ln -s / rootlink")
            for path in ("link", "link2", "link3", f"rootlink{canary.name}", f"../../../..{canary.name}",
                         f"/proc/self/root{canary.name}", f"/proc/1/cwd{canary.name}"):
                with self.subTest(path):
                    result = self.call("sandbox_read_file", path=path)
                    self.assertNotIn("host canary", result.text)
                    self.call("sandbox_write_file", path=path, content="overwritten")
            with open(canary.name) as f:
                self.assertEqual(f.read(), "host canary")

    def test_file_names_with_surprises_are_listed(self):
        self.sh("mkdir odd-names && cd odd-names && touch 'with space' 'new\nline' \"quo'te\" -- -dash")
        entries = self.ok("sandbox_list_files", path="odd-names")["entries"]
        self.assertEqual(len(entries), 4)
        self.refused("sandbox_read_file", path="nul\0byte")
        self.refused("sandbox_read_file", path="x" * 5000)

    def test_a_huge_folder_is_listed_up_to_the_limit(self):
        self.sh("mkdir huge && cd huge && seq 5000 | xargs touch")
        listed = self.ok("sandbox_list_files", path="huge", limit=100)
        self.assertEqual((len(listed["entries"]), listed["truncated"]), (100, True))

    def test_a_large_write_and_read_come_back_whole(self):
        content = "".join(f"line {i}\n" for i in range(50_000))
        self.ok("sandbox_write_file", path="large", content=content)
        self.assertEqual(int(self.sh("wc -c < large")), len(content))
        part = self.ok("sandbox_read_file", path="large", line_range=[25_000, 25_001])
        self.assertIn("line 24999", part.get("text", part.get("content", "")))
        self.assertTrue(self.ok("sandbox_read_file", path="large")["truncated"])


class PoorHosts(HutchCase):
    """A host that lacks what hutch needs. Nothing may run outside a sandbox because of it."""

    # In a mount namespace of its own each runtime is covered by a file that cannot be run: hutch looks for them in more
    # places than $PATH, as hosts start it with a poor one.
    HIDE = ("for f in $(which -a crun runc runsc 2>/dev/null) /usr/bin/crun /usr/bin/runc /usr/sbin/runc /usr/bin/runsc; do "
            "test -e $f && mount --bind /dev/null $f; done; exec \"$@\"")

    def without_runtimes(self, *args):
        if os.geteuid() != 0 or not shutil.which("unshare"):
            self.skipTest("hiding the runtimes needs root")
        return ["unshare", "--mount", "sh", "-c", self.HIDE, "sh", HUTCH, *args]

    def test_without_an_oci_runtime_calls_say_what_to_install_and_run_nothing(self):
        canary = os.path.join(self.home, "ran-outside")
        with Client(self.without_runtimes("mcp", "--results", "structured"), env=self.env()) as client:
            for tool, arguments in (("sandbox_create", {}), ("sandbox_exec", {"command": f"touch {canary}"}),
                                    ("sandbox_eval", {"code": f"open({canary!r}, 'w')", "language": "python"})):
                with self.subTest(tool):
                    result = call(client, tool, **arguments)
                    self.assertTrue(result.is_error, result.text)
                    self.assertIn("apt-get install", result.text)
                    self.assertIn("crun", result.text)
            self.assertFalse(os.path.exists(canary))
            client.ping()

    def test_without_an_oci_runtime_run_fails_and_doctor_names_the_package(self):
        canary = os.path.join(self.home, "ran-outside")

        def go(*args):
            return subprocess.run(self.without_runtimes(*args), capture_output=True, text=True, env=self.env(), timeout=60,
                                  stdin=subprocess.DEVNULL)
        done = go("run", "--", "touch", canary)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("apt-get install", done.stdout + done.stderr)
        self.assertFalse(os.path.exists(canary))
        said = go("doctor")
        self.assertNotEqual(said.returncode, 0)
        self.assertIn("apt-get install", said.stdout)

    def test_a_runtime_that_does_not_exist_is_named(self):
        with self.server("--results", "structured", env={"HUTCH_OCI__RUNTIME": "/nowhere/crun"}) as client:
            result = call(client, "sandbox_exec", command="true")
            self.assertTrue(result.is_error, result.text)
            self.assertIn("/nowhere/crun", result.text)

    def test_a_broken_runtime_is_an_error_that_quotes_it_and_leaves_nothing(self):
        broken = os.path.join(self.home, "crun")
        with open(broken, "w") as f:
            f.write("#!/bin/sh\necho 'the broken runtime speaks' >&2\nexit 1\n")
        os.chmod(broken, 0o755)
        with self.server("--results", "structured", env={"HUTCH_OCI__RUNTIME": broken}) as client:
            result = call(client, "sandbox_exec", command="true")
            self.assertTrue(result.is_error)
            self.assertIn("the broken runtime speaks", result.text)
            client.ping()
        leaks.wait_clean(self.before, self.home)

    def test_a_data_folder_that_cannot_be_made_is_a_clear_error(self):
        with self.server("--results", "structured", env={"HUTCH_HOME": "/proc/no/such"}) as client:
            result = call(client, "sandbox_create")
            self.assertTrue(result.is_error)
            self.assertIn("/proc/no/such", result.text)

    def test_a_full_disk_is_a_clear_error_and_nothing_is_lost(self):
        skip_when_impossible()
        if os.geteuid() != 0:
            self.skipTest("mounting a small tmpfs needs root")
        small = tempfile.mkdtemp(dir=self.home)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small], check=True)
        try:
            with self.server("--results", "structured", env={"HUTCH_HOME": small}) as client:
                made = call(client, "sandbox_create")
                if made.is_error:  # too small from the start: says so
                    self.assertRegex(made.text.lower(), "space|disk|full")
                    return
                box = made.structured["sandbox_id"]
                call(client, "sandbox_write_file", sandbox_id=box, path="kept", content="kept\n")
                filled = call(client, "sandbox_exec", sandbox_id=box, command="head -c 100M /dev/zero > /workspace/fill")
                self.assertFalse(filled.is_error, filled.text)
                self.assertIn("No space left", filled.structured["stderr"])
                refused = call(client, "sandbox_write_file", sandbox_id=box, path="more", content="x" * 1_000_000)
                self.assertTrue(refused.is_error, refused.text)
                self.assertRegex(refused.text.lower(), "space|full|disk")
                self.assertIn("kept", call(client, "sandbox_exec", sandbox_id=box, command="cat kept").structured["stdout"])
                over = call(client, "sandbox_write_file", sandbox_id=box, path="kept", content="y" * 1_000_000)
                self.assertTrue(over.is_error, "an overwrite on a full disk")
                self.assertEqual(call(client, "sandbox_exec", sandbox_id=box, command="cat kept").structured["stdout"],
                                 "kept\n", "a failed overwrite must leave the old file")
                self.assertFalse(call(client, "sandbox_destroy", sandbox_id=box).is_error)
        finally:
            subprocess.run(["umount", small], check=True)


class NoPermission(HutchCase):
    def test_a_user_without_namespaces_gets_an_error_or_a_sandbox_never_a_bare_run(self):
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            self.skipTest("needs root to become somebody without power")
        os.chmod(self.home, 0o711)
        home = tempfile.mkdtemp(dir=self.home)
        canary = os.path.join(home, "ran-outside")
        os.chown(home, 65534, 65534)
        reachable = shutil.copy(HUTCH, os.path.join(self.home, "hutch"))  # the build folder may be root's own
        os.chmod(reachable, 0o755)
        # No new namespaces: what a locked-down container allows its processes.
        shell = "ulimit -u 200; exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs " \
                f"--bounding-set -all {reachable} run -- sh -c 'touch {canary}; id -u'"
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60,
                              env=self.env(HUTCH_HOME=home, HOME=home), stdin=subprocess.DEVNULL)
        self.assertFalse(os.path.exists(canary), "the command ran outside")
        if done.returncode != 0:
            self.assertGreater(len(done.stderr), 0)


if __name__ == "__main__":
    unittest.main()
