#!/usr/bin/env python3
"""Writes WORK/peers.json, the programs that hutch is measured beside:

    peers.py WORK WHY_NO_DOCKER CONTAINER WHY_NO_NPM

WORK/rootfs is a root folder with links into /usr. What cannot be measured here is named, with the reason."""
import json
import os
import pathlib
import shutil
import subprocess
import sys

work, no_docker, container, no_npm = pathlib.Path(sys.argv[1]), *sys.argv[2:]
HERE = pathlib.Path(__file__).resolve().parent
UNIFIED = "/sys/fs/cgroup/unified"
# One process, which keeps connections on both sides, and whose files all lie in a folder of its own.
NGINX = """daemon off; master_process off; pid {folder}/pid;
events {}
http {
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream target { server 127.0.0.1:{target}; keepalive 4; keepalive_requests 1000000; }
  server {
    listen 127.0.0.1:{listen};
    location / { proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_max_temp_file_size 0; }
  }
}
"""
peers = []


def missing(name, why):
    peers.append({"name": name, "missing": why})


def command(name, argv, measures="create_exec_destroy", **more):
    peers.append({"name": name, "kind": "command", "measures": measures, "argv": [str(a) for a in argv], **more})


def works(argv):
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode == 0


def bubblewrap():
    if not shutil.which("bwrap"):
        return missing("bwrap", "not installed: apt-get install bubblewrap")
    links = [word for folder in ("bin", "lib", "lib64") for word in ("--symlink", f"usr/{folder}", f"/{folder}")]
    command("bwrap", ["bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", *links, "--proc", "/proc", "--dev", "/dev",
                      "--tmpfs", "/tmp", "true"], cycles=True)


def bundle():
    """What `crun spec` makes, with the host's programs and `true` to run."""
    folder = work / "bundle"
    folder.mkdir()
    maker = "crun" if shutil.which("crun") else "runc"
    subprocess.run([maker, "spec"], cwd=folder, check=True)
    spec = json.loads((folder / "config.json").read_text())
    spec["process"].update(terminal=False, args=["true"])
    spec["root"]["path"] = str(work / "rootfs")
    spec["mounts"].insert(0, {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]})
    (folder / "config.json").write_text(json.dumps(spec))
    return folder


def oci_runtimes():
    names = ("crun", "runc", "runsc")
    found = [n for n in names if shutil.which(n)]
    for name in set(names) - set(found):
        missing(name, f"not installed: apt-get install {name}")
    if os.geteuid() != 0:
        for name in found:
            missing(name, "needs root for a bundle without a user namespace")
        return
    folder = bundle() if {"crun", "runc"} & set(found) else None
    for name in found if folder else ():
        options = ["--platform=ptrace", "--network=none", "--ignore-cgroups"] if name == "runsc" else []
        argv = [name, *options, "run", "--bundle", str(folder), "{id}"]
        trial = [word.replace("{id}", f"hutch-bench-trial-{os.getpid()}") for word in argv]
        cycles = {"cycles": True} if name != "runsc" else {}
        if works(trial):
            command(name, argv, **cycles)
        elif os.path.ismount(UNIFIED) and works(["unshare", "-m", "sh", "-c", f'umount {UNIFIED} && exec "$@"', "sh", *trial]):
            # Not a wrapper around each run: the loop that takes the times runs in such a namespace.
            command(name, argv, unmount=[UNIFIED], note="refuses hybrid cgroups: measured where the v2 tree is not mounted", **cycles)
        else:
            missing(name, f"`{' '.join(trial)}` fails here")


def docker():
    if no_docker:
        missing("docker run", no_docker)
        return missing("docker exec", no_docker)
    env = {name: os.environ[name] for name in ("DOCKER_HOST", "DOCKER_CONFIG")}
    command("docker run", ["docker", "run", "--rm", "--network", "none", "-v", "/usr:/usr:ro", "hutch-bench", "true"], env=env,
            cycles=True)
    command("docker exec", ["docker", "exec", container, "true"], "exec", env=env)


def sandbox_runtime():
    if no_npm:
        return missing("srt", no_npm)
    tools = {"bwrap": "bubblewrap", "socat": "socat", "rg": "ripgrep"}
    if lacking := [package for tool, package in tools.items() if not shutil.which(tool)]:
        return missing("srt", f"needs more: apt-get install {' '.join(lacking)}")
    argv = [HERE / "node_modules/.bin/srt", "true"]
    if works([str(a) for a in argv]):
        command("srt", argv)
    else:
        missing("srt", "`srt true` fails here")


def text(size, first):
    lines = [first + "\n"]
    while sum(map(len, lines)) < size:
        lines += [f"{n:08} {'.' * 54}\n" for n in range(len(lines), len(lines) + 64)]
    return "".join(lines)[:size - 1] + "\n"


def filesystem_server():
    if no_npm:
        return missing("server-filesystem", no_npm)
    folder = work / "files"
    folder.mkdir()
    sizes = {"4k": 4096, "1m": 1 << 20}
    calls = []
    for name, size in sizes.items():
        file = str(folder / f"{name}.txt")
        pathlib.Path(file).write_text(text(size, "one"))
        change = [{"path": file, "edits": [{"oldText": a, "newText": b}]} for a, b in (("one\n", "two\n"), ("two\n", "one\n"))]
        calls += [{"measures": f"read_{name}", "tool": "read_text_file", "arguments": {"path": file}, "expect": "00000009"},
                  {"measures": f"edit_{name}", "tool": "edit_file", "arguments": change, "expect": "two"},
                  {"measures": f"write_{name}", "tool": "write_file",
                   "arguments": [{"path": file, "content": text(size, word)} for word in ("one", "two")]}]
    peers.append({"name": "server-filesystem", "kind": "mcp", "start": True, "calls": calls, "note": "no sandbox",
                  "argv": [str(HERE / "node_modules/.bin/mcp-server-filesystem"), str(folder)]})


def code_runner():
    if no_npm:
        return missing("code-runner", no_npm)
    calls = [{"measures": "exec_sh", "tool": "run-code", "arguments": {"code": "echo ran", "languageId": "shellscript"}, "expect": "ran"}]
    peers.append({"name": "code-runner", "kind": "mcp", "start": True, "calls": calls, "note": "no sandbox",
                  "argv": [str(HERE / "node_modules/.bin/mcp-server-code-runner")]})


def relays():
    """What passes connections on, as the ports of sandboxes do."""
    argvs = {"socat": ["socat", "TCP-LISTEN:{listen},bind=127.0.0.1,reuseaddr,fork,nodelay", "TCP:127.0.0.1:{target},nodelay"],
             "nginx": ["nginx", "-p", "{folder}", "-c", "{folder}/config", "-e", "{folder}/errors"]}
    for name, argv in argvs.items():
        if not shutil.which(name):
            missing(name, f"not installed: apt-get install {name}")
            continue
        config = {"config": NGINX} if name == "nginx" else {}
        peers.append({"name": name, "kind": "relay", "argv": argv, **config})


for prepare in (bubblewrap, oci_runtimes, docker, sandbox_runtime, filesystem_server, code_runner, relays):
    prepare()
(work / "peers.json").write_text(json.dumps(peers, indent=1))
for peer in peers:
    if "missing" in peer:
        print(f"left out: {peer['name']}: {peer['missing']}", file=sys.stderr)
