#!/usr/bin/env python3
"""Boots a kernel with cgroup v2 in QEMU and runs the real program in it.

    run.py [--build FOLDER] [--only PART] [--memory MIB] [--command TEXT] [--console]

The machine is made of installed Debian packages (a kernel, which is only downloaded and unpacked, and the files of
PACKAGES with all that they depend on) and lasts as long as the run. What takes long is kept in FOLDER/v2. The checks
themselves are in guest.sh and test_*.py beside this file. The part `pressure`, which fills the machine's memory, runs only
when it is named. Ends with `N passed, N failed, N skipped`; exit status
0, 1 or, when something is missing on this host, 77. HUTCHTEST_KVM=1 uses KVM instead of emulation.
"""
import argparse
import glob
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bash coreutils crun dash e2fsprogs findutils gawk grep hostname libc-bin login mount passwd procps python3 runc sed "
            "tar uidmap util-linux").split()
LEFT_OUT = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bug|zoneinfo|perl)/|/(__pycache__|test|idlelib|tkinter|lib2to3)/")
# In the order of their loading.
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk", "overlay")
TIME_LIMIT_S = int(os.environ.get("HUTCHTEST_V2_TIME_S", "1200"))


class Missing(Exception):
    """Something that this host would need."""


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


# -- the kernel and what it starts from --------------------------------------------------------------------------


def kernel_package():
    text = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True).stdout
    found = re.search(r"Depends: (linux-image-\S+)", text)
    if not found:
        raise Missing("apt-cache knows no package linux-image-cloud-amd64")
    return found[1]


def kernel(cache):
    """(vmlinuz, folder of modules), from the cache or from Debian."""
    if not glob.glob(f"{cache}/kernel/boot/vmlinuz-*"):
        fresh = cache / "kernel.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        done = subprocess.run(["apt-get", "download", "-qq", kernel_package()], cwd=fresh, capture_output=True, text=True, timeout=600)
        archives = glob.glob(f"{fresh}/*.deb")
        if not archives:
            raise Missing(f"the kernel cannot be downloaded: {done.stderr.strip()}")
        run("dpkg", "-x", archives[0], fresh)
        os.unlink(archives[0])
        fresh.rename(cache / "kernel")
    vmlinuz = glob.glob(f"{cache}/kernel/boot/vmlinuz-*")[0]
    return vmlinuz, glob.glob(f"{cache}/kernel/lib/modules/*")[0]


FIRST = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for m in {modules}; do /bin/busybox insmod /$m.ko || echo "cannot load $m"; done
/bin/busybox mount -t ext4 /dev/vda /root || exec /bin/busybox poweroff -f
/bin/busybox mount -t ext4 -o ro /dev/vdb /root/project
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /bin/bash /project/tests/v2/guest.sh
"""


def initramfs(cache, modules):
    folder, image = cache / "initramfs", cache / "initramfs.cpio"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("bin", "dev", "root"):
        (folder / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), folder / "bin/busybox")
    for name in MODULES:
        shutil.copy(glob.glob(f"{modules}/**/{name}.ko", recursive=True)[0], folder)
    (folder / "init").write_text(FIRST.format(modules=" ".join(MODULES)))
    (folder / "init").chmod(0o755)
    names = "\n".join(os.path.relpath(p, folder) for p in sorted(folder.rglob("*")))
    image.write_bytes(subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], cwd=folder, input=names.encode(), capture_output=True,
                                     check=True).stdout)
    return image


# -- the disks ---------------------------------------------------------------------------------------------------


def with_dependencies(packages):
    """All installed packages that these need, with themselves."""
    fields = run("dpkg-query", "-W", "-f=${Package}\t${Version}\t${Provides}\t${Pre-Depends}, ${Depends}\n")
    needs, versions, provides = {}, {}, {}
    for line in fields.splitlines():
        name, version, provided, wanted = line.split("\t")
        needs[name], versions[name] = re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)", wanted), version
        for virtual in re.findall(r"(?:^|,)\s*([a-z0-9][a-z0-9+.-]*)", provided):
            provides.setdefault(virtual, name)
    found, todo = set(), list(packages)
    while todo:
        name = todo.pop()
        name = name if name in needs else provides.get(name)
        if name and name not in found:
            found.add(name)
            todo += needs[name]
    return {name: versions[name] for name in found}


def copy(path, tree):
    """One file of the host into the tree, where its folder really is (/bin is a link to /usr/bin)."""
    path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    target = tree + path
    if os.path.islink(path) or os.path.isfile(path):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.lexists(target):
            shutil.copy2(path, target, follow_symlinks=False)


def files_of(packages):
    for name in sorted(packages):
        for listing in glob.glob(f"/var/lib/dpkg/info/{name}.list") + glob.glob(f"/var/lib/dpkg/info/{name}:*.list"):
            for path in open(listing).read().splitlines():
                if not LEFT_OUT.search(path):
                    yield path


def libraries(program):
    return re.findall(r"(?:=> )?(/\S+) \(0x", run("ldd", program))


def ext4(folder, image, room_mb):
    used = int(run("du", "-sm", folder).split()[0])
    image.unlink(missing_ok=True)
    run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", folder, image, f"{used * 5 // 4 + room_mb}M")
    shutil.rmtree(folder)
    return image


ETC = {
    "etc/passwd": "root:x:0:0::/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
    "etc/subuid": "user:100000:65536\n",
    "etc/subgid": "user:100000:65536\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


def system_disk(cache, hutch):
    """The machine's own disk; made again when a package or what hutch needs has changed."""
    absent = [name for name in PACKAGES if not glob.glob(f"/var/lib/dpkg/info/{name}.list") and name != "gawk"]
    if absent:
        raise Missing(f"not installed: {' '.join(absent)}")
    packages, needed = with_dependencies(PACKAGES), libraries(hutch)
    key = hashlib.sha256(repr((sorted(packages.items()), needed, Path(__file__).read_text())).encode()).hexdigest()[:16]
    image = cache / f"system-{key}.ext4"
    if image.exists():
        return image
    for old in glob.glob(f"{cache}/system-*"):
        os.unlink(old)
    folder = cache / "system"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("dev", "proc", "sys", "run", "tmp", "root", "mnt", "srv", "media", "project", "home/user", "etc", "var/tmp", "var/lib",
                 "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"):
        (folder / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (folder / name).symlink_to(f"usr/{name}")
    for name, text in ETC.items():
        (folder / name).write_text(text)
    for path in files_of(packages):
        copy(path, str(folder))
    for path in needed:
        for place in {path, os.path.realpath(path)}:
            copy(place, str(folder))
    for path in glob.glob("/etc/alternatives/*") + ["/etc/ld.so.conf", *glob.glob("/etc/ld.so.conf.d/*")]:
        copy(path, str(folder))
    # A program chosen by a link to a package that was left out is as if it were not there.
    run("ldconfig", "-r", folder)
    (folder / "tmp").chmod(0o1777)
    (folder / "var/tmp").chmod(0o1777)
    ext4(folder, cache / "system.new", 16 * 1024)  # sparse; hutch keeps a reserve of a host's disk
    (cache / "system.new").rename(image)
    return image


def project_disk(cache, hutch, command):
    folder = cache / "project"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "build/src").mkdir(parents=True)
    for name in run("git", "ls-files", "-co", "--exclude-standard", "tests", "examples", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if command:
        (folder / "command.sh").write_text(command + "\n")
    run("strip", "--strip-debug", "-o", folder / "build/src/hutch", hutch)
    return ext4(folder, cache / "project.ext4", 16)


# -- the run -----------------------------------------------------------------------------------------------------


def machine(cache, hutch, options):
    vmlinuz, modules = kernel(cache)
    kvm = os.environ.get("HUTCHTEST_KVM")
    # `snapshot`: what the guest writes is thrown away, and the cached disks stay as they are.
    disks = [w for image in (system_disk(cache, hutch), project_disk(cache, hutch, options.command))
             for w in ("-drive", f"file={image},format=raw,if=virtio,snapshot=on,cache=unsafe")]
    command = ["qemu-system-x86_64", "-M", "q35", *(("-accel", "kvm", "-cpu", "host") if kvm else
                                                     ("-accel", "tcg,thread=multi", "-cpu", "max")),
               "-smp", "2", "-m", options.memory, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
               "-kernel", vmlinuz, "-initrd", initramfs(cache, modules),
               "-append", "console=ttyS0 quiet panic=-1 mitigations=off hutchtest.only=" + options.only,
               "-serial", f"file:{cache}/console.log", "-serial", "stdio", *disks]
    return [str(c) for c in command]


def watch(command):
    """Runs the machine, passes its lines on and returns them."""
    lines = []
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
    late = threading.Timer(TIME_LIMIT_S, process.kill)
    late.start()
    signal.signal(signal.SIGTERM, lambda *_: (process.kill(), sys.exit(1)))
    try:
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\r\n")
            lines.append(line)
            # The sums of the parts are not the sum of the run.
            print("   " + line if re.match(r"\d+ passed, ", line) else line, flush=True)
    finally:
        late.cancel()
        process.kill()
        process.wait()
    return lines


def prepare(options):
    if platform.machine() != "x86_64":
        raise Missing("this machine is no x86-64: the kernel package is for that only")
    for program, package in (("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"), ("mke2fs", "e2fsprogs"),
                             ("apt-get", "apt"), ("dpkg-query", "dpkg")):
        if not shutil.which(program):
            raise Missing(f"{program} is not installed: apt-get install {package}")
    hutch = options.build / "src/hutch"
    if not hutch.exists():
        raise RuntimeError(f"there is no {hutch}: build first")
    cache = options.build / "v2"
    cache.mkdir(parents=True, exist_ok=True)
    return cache, hutch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--only", default="", metavar="PART", help="only the parts whose name begins so")
    parser.add_argument("--memory", type=int, default=3072, metavar="MIB", help="of the machine")
    parser.add_argument("--command", default="", metavar="TEXT", help="a shell command to run there instead, for looking around")
    parser.add_argument("--console", action="store_true", help="show the kernel's console at the end")
    options = parser.parse_args()
    options.build = options.build.resolve()
    try:
        cache, hutch = prepare(options)
        command = machine(cache, hutch, options)
    except Missing as e:
        print(f"SKIP {e}")
        print("0 passed, 0 failed, 1 skipped")
        sys.exit(77)
    lines = watch(command)
    sums = [tuple(map(int, found)) for line in lines for found in re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", line)]
    passed, failed, skipped = (sum(column) for column in zip(*sums)) if sums else (0, 0, 0)
    if "all parts ran" not in lines:
        failed += 1
        print(f"FAIL the machine ended before all parts had run, or took longer than {TIME_LIMIT_S} s; its console:")
        options.console = True
    if options.console:
        print((cache / "console.log").read_text(errors="replace")[-6000:])
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 77 if not passed else 0)


if __name__ == "__main__":
    main()
