"""Resources as a client reads them: the state, the settings, files and logs of sandboxes."""
import base64
import json
import os

from mcp_client import REVISIONS, RpcError
from sandbox_case import HutchCase, SandboxCase, skip_when_impossible

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")


def read(client, uri):
    contents = client.request("resources/read", {"uri": uri})["contents"]
    assert len(contents) == 1, contents
    assert contents[0]["uri"] == uri, contents
    return contents[0]


class EveryRevision(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def test_lists_reads_and_completions_work_in_every_revision(self):
        for revision in REVISIONS:
            with self.subTest(revision), self.server(revision=revision) as client:
                self.assertEqual({r["uri"] for r in client.request("resources/list")["resources"]},
                                 {"hutch://status", "hutch://config"})
                templates = [t["uriTemplate"] for t in client.request("resources/templates/list")["resourceTemplates"]]
                self.assertEqual(templates, ["sandbox://{id}/files/{+path}", "sandbox://{id}/logs/{number}"])
                client.call_tool("sandbox_create", {"name": "rev"})
                client.call_tool("sandbox_exec", {"sandbox_id": "rev", "command": "echo hello | tee /workspace/f"})
                for uri in ("sandbox://rev/files/workspace/f", "sandbox://rev/logs/1"):
                    self.assertEqual(read(client, uri)["text"], "hello\n")
                self.assertEqual([s["name"] for s in json.loads(read(client, "hutch://status")["text"])["sandboxes"]], ["rev"])
                for template in templates:
                    found = client.request("completion/complete", {"ref": {"type": "ref/resource", "uri": template},
                                                                   "argument": {"name": "id", "value": "re"}})
                    self.assertEqual(found["completion"]["values"], ["rev"])
                for uri in ("hutch://nothing", "sandbox://nobody/files/etc/passwd", "sandbox://rev/files/none",
                            "sandbox://rev/logs/77", "sandbox://rev/logs/../1"):
                    with self.assertRaises(RpcError) as failed:
                        read(client, uri)
                    self.assertEqual(failed.exception.code, -32602 if client.modern else -32002, uri)
                    self.assertEqual(failed.exception.data, {"uri": uri})


class BeforeTheFirstCall(HutchCase):
    def test_reading_the_state_makes_nothing(self):
        with self.server() as client:
            status = json.loads(read(client, "hutch://status")["text"])
            read(client, "hutch://config")
            client.request("completion/complete", {"ref": {"type": "ref/resource", "uri": "sandbox://{id}/logs/{number}"},
                                                   "argument": {"name": "id", "value": ""}})
            self.assertEqual((status["sandboxes"], status["pool"], status["server"]["pid"]), ([], [], client.pid))
            self.assertGreater(status["host"]["memory_available_bytes"], 0)
            self.assertGreater(status["host"]["disk_free_bytes"], 0)
            self.assertEqual(os.listdir(self.home), [])


class Contents(SandboxCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.box = cls.client.call_tool("sandbox_create", {"name": "box", "memory": "100m"})["structuredContent"]["sandbox_id"]

    def read(self, path):
        return read(self.client, f"sandbox://{self.box}/{path}")

    def error(self, path):
        with self.assertRaises(RpcError) as failed:
            self.read(path)
        return failed.exception

    def test_text_is_text_and_all_else_is_a_blob(self):
        self.python("open('/workspace/ä b', 'w').write('grün\\n'); open('/workspace/raw', 'wb').write(b'\\0\\1\\xff');"
                    f"open('/workspace/dot.png', 'wb').write({PNG!r}); open('/workspace/empty', 'w')", sandbox_id="box")
        self.assertEqual(self.read("files/workspace/%C3%A4%20b")["text"], "grün\n")
        self.assertEqual(self.read("files//workspace/%C3%A4%20b")["mimeType"], "text/plain")
        self.assertEqual(self.read("files/workspace/empty")["text"], "")
        raw, png = self.read("files/workspace/raw"), self.read("files/workspace/dot.png")
        self.assertEqual((base64.b64decode(raw["blob"]), raw["mimeType"]), (b"\0\1\xff", "application/octet-stream"))
        self.assertEqual((base64.b64decode(png["blob"]), png["mimeType"]), (PNG, "image/png"))

    def test_a_log_is_whole_although_the_result_was_cut(self):
        done = self.ok("sandbox_exec", sandbox_id="box", command="seq 100000; printf '\\377'")
        self.assertTrue(done["truncated"])
        number = done["log"].split("/")[-1].removesuffix(".log")
        log = self.read(f"logs/{number}")
        self.assertEqual(log["text"], "".join(f"{i}\n" for i in range(1, 100_001)) + "\ufffd")

    def test_a_link_to_a_file_of_the_host_leads_nowhere(self):
        with open(f"{self.home}/of-the-host", "w") as file:
            file.write("secret")
        self.addCleanup(os.remove, file.name)
        self.sh(f"mkdir -p /var/log/hutch; ln -sf {file.name} link; ln -sf ../../../../../..{file.name} up; ln -sf {file.name} /var/log/hutch/900.log",
                sandbox_id="box")
        for path in ("files/workspace/link", "files/workspace/up", "logs/900", f"files/{file.name}",
                     f"files/../../../..{file.name}", f"files/%2e%2e/%2e%2e{file.name}"):
            self.assertEqual(self.error(path).code, -32002, path)

    def test_folders_devices_and_what_is_too_large_are_errors_that_say_what_to_do(self):
        self.sh("truncate -s 300m /workspace/huge; truncate -s 9m /workspace/large; mkfifo -m 600 /workspace/fifo; mkdir -p /var/log/hutch; ln -sf /workspace/huge /var/log/hutch/901.log",
                sandbox_id="box")
        for path in ("files/workspace/huge", "files/workspace/large", "logs/901"):
            error = self.error(path)
            self.assertEqual(error.code, -32603, path)
            self.assertIn("sandbox_exec", error.message)
        self.assertIn("sandbox_list_files", self.error("files/workspace").message)
        self.assertIn("sandbox_exec", self.error("files/workspace/fifo").message)

    def test_an_unknown_sandbox_names_the_live_ones(self):
        with self.assertRaises(RpcError) as failed:
            read(self.client, "sandbox://sbx-000000000000/files/etc/passwd")
        self.assertIn(self.box, failed.exception.message)

    def test_the_state_has_the_figures_of_host_server_and_sandbox(self):
        self.sh("head -c 3000000 /dev/urandom > /workspace/three; sleep 0.1", sandbox_id="box")
        status = json.loads(read(self.client, "hutch://status")["text"])
        host, server, totals = status["host"], status["server"], status["totals"]
        self.assertEqual(host["cpus"], os.sysconf("SC_NPROCESSORS_ONLN"))
        self.assertTrue(0 < host["memory_available_bytes"] < host["memory_bytes"])
        self.assertTrue(0 < host["disk_free_bytes"] <= host["disk_bytes"])
        self.assertIn(host["cgroup"], ("v1", "v2", "none"))
        self.assertEqual(server["pid"], self.client.pid)
        self.assertIn(server["id"], os.listdir(f"{self.home}/servers"))
        self.assertIn(f"({os.getpid()})", server["owner"])
        box = next(s for s in status["sandboxes"] if s["id"] == self.box)
        self.assertEqual((box["name"], box["state"], box["profile"], box["memory_limit_bytes"]), ("box", "running", "default", 100 << 20))
        self.assertGreater(box["cpu_s"], 0)
        self.assertGreater(box["pids"], 0)
        self.assertGreater(box["disk_bytes"], 3_000_000)
        self.assertTrue(0 < box["ends_in_s"] <= 1800)
        self.assertEqual(totals["sandboxes"], len(status["sandboxes"]))
        self.assertEqual(totals["memory_limits_bytes"], sum(s["memory_limit_bytes"] for s in status["sandboxes"]))
        self.assertEqual(totals["disk_bytes"], sum(s["disk_bytes"] for s in status["sandboxes"]))

    def test_the_state_says_what_befell_a_sandbox_at_its_limits(self):
        made = self.ok("sandbox_create", memory="64m")["sandbox_id"]
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=made)
        done = self.ok("sandbox_exec", sandbox_id=made, argv=["python3", "-c", "x = bytearray(300 << 20)"])
        self.assertEqual(done["end"], "oom_killed")
        status = json.loads(read(self.client, "hutch://status")["text"])
        box = next(s for s in status["sandboxes"] if s["id"] == made)
        self.assertIn("killed at its memory limit", " ".join(box["done_to_it"]))
        self.assertEqual(next(s for s in status["sandboxes"] if s["id"] == self.box)["done_to_it"], [])


class Settings(HutchCase):
    def test_settings_come_with_their_origins_and_without_the_values_of_environments(self):
        path = f"{self.home}/hutch.yaml"
        with open(path, "w") as file:
            file.write("sandbox:\n  memory: 300m\nprofiles:\n  web:\n    env:\n      API_TOKEN: s3cr3t-value\n")
        with self.server("--config", path, env={"HUTCH_SANDBOX__PIDS": "99"}) as client:
            text = read(client, "hutch://config")["text"]
        self.assertNotIn("s3cr3t", text)
        config = json.loads(text)
        self.assertEqual((config["settings"]["sandbox"]["memory"], config["settings"]["sandbox"]["pids"]), ("300m", 99))
        self.assertEqual(list(config["settings"]["profiles"]["web"]["env"]), ["API_TOKEN"])
        self.assertEqual(config["origins"]["sandbox.pids"], "HUTCH_SANDBOX__PIDS")
        self.assertIn("hutch.yaml:2", config["origins"]["sandbox.memory"])
        self.assertEqual(config["file"], path)
