"""Archives of templates made by hand, byte by byte, so that they can be anything; and trees of files, made and
compared."""
import hashlib
import json
import os
import random
import socket
import stat
import struct

BLOCK = 512
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw, effective


def padded(content):
    return content + b"\0" * (-len(content) % BLOCK)


def header(name, kind=b"0", size=0, mode=0o644, uid=0, gid=0, mtime=1_700_000_000, link=b"", major=0, minor=0,
           magic=b"ustar\00000"):
    def octal(value, width):
        return b"%0*o\0" % (width - 1, value)

    block = (name[:100].ljust(100, b"\0") + octal(mode, 8) + octal(uid, 8) + octal(gid, 8) + octal(size, 12) +
             octal(mtime, 12) + b" " * 8 + kind + link[:100].ljust(100, b"\0") + magic + b"\0" * 64 + octal(major, 8) +
             octal(minor, 8)).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def record(key, value):
    rest = len(key) + len(value) + 3
    length = rest + 1
    while rest + len(str(length)) != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def pax(records):
    """`records`: pairs, or the bytes themselves."""
    text = records if isinstance(records, bytes) else b"".join(record(k, v) for k, v in records)
    return header(b"./PaxHeaders/x", b"x", len(text)) + padded(text)


def entry(name, content=b"", records=(), **fields):
    fields.setdefault("size", len(content))
    return (pax(records) if records else b"") + header(name, **fields) + padded(content)


def folder(name, **fields):
    return entry(name + b"/", kind=b"5", mode=fields.pop("mode", 0o755), **fields)


ROOT = folder(b"layers/0/root")
END = b"\0" * 1024


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def archive(*layers, name="made", declared=None, manifest=None, digests=None, end=END, **changes):
    """Each layer is the bytes of its part. `changes`: of the manifest's fields; `declared`: (entries, bytes)."""
    if manifest is None:
        sizes = [declared or (part.count(b"ustar"), len(part)) for part in layers]
        manifest = json.dumps({"format": "hutch-template", "version": 1,
                               "template": {"name": name, "base": {"layers": [f"layer-{i}" for i, _ in enumerate(layers)]}},
                               "layers": [{"entries": e, "bytes": b} for e, b in sizes], **changes}).encode()
    if digests is None:
        digests = json.dumps({"manifest": digest(manifest), "layers": [digest(part) for part in layers]}).encode()
    return (entry(b"hutch-template.json", manifest) + b"".join(layers) +
            (entry(b"hutch-digests.json", digests) if digests else b"") + end)


# -- trees -----------------------------------------------------------------------------------------------------

NAMES = [b"plain", b"with space", b"new\nline", b"\xff\xfe not UTF-8", "ümläut".encode(), b"tab\there", b"-dash", b"*", b"\\back",
         b"per%cent=equals", b"l" * 255, b"\x01\x7f", "語".encode() * 80]
MODES = [0o644, 0o600, 0o755, 0o000, 0o4755, 0o2755, 0o6711, 0o1644, 0o444, 0o777]
TIMES = [0, 1, 1_700_000_000_123_456_789, 1_000_000_000_000_000_000, -1, -1_500_000_000, -86_400_000_000_001,
         4_102_444_800_999_999_999]


def make_tree(top, count, rng, root=True):
    """About `count` entries of every kind below `top`, which exists. Without root: one owner, marks of its kind."""
    folders = [os.fsencode(top)]
    made, times = [], [(folders[0], rng.choice(TIMES))]
    opaque = "trusted.overlay.opaque" if root else "user.overlay.opaque"
    for i in range(count):
        parent = rng.choice(folders[-60:] if i % 3 else folders)
        path = os.path.join(parent, b"%d-" % i + rng.choice(NAMES)[:240])
        kind = rng.choices(("file", "folder", "symlink", "link", "fifo", "socket", "sparse", "gone"),
                           (60, 12, 8, 6, 2, 1, 2, 4))[0]
        if kind == "file" or kind == "link" and not made:
            with open(path, "wb") as file:
                file.write(rng.randbytes(rng.choice((0, 1, 511, 512, 513, 4096, 5000, 70_000 if i % 20 == 0 else 9))))
            made.append(path)
        elif kind == "folder":
            os.mkdir(path)
            times.append((path, rng.choice(TIMES)))
            if len(path) < 3000:
                folders.append(path)
            if rng.random() < 0.1:
                os.setxattr(path, opaque, b"y")
        elif kind == "symlink":
            os.symlink(rng.choice((b"/etc/passwd", b"../..", b"gone", b"x" * 300, b"\xff\n")), path)
        elif kind == "link":
            os.link(rng.choice(made), path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            here = os.open(parent, os.O_RDONLY)
            with socket.socket(socket.AF_UNIX) as sock:  # by a short name: its own has 108 bytes at most
                sock.bind(f"/proc/self/fd/{here}/s{i}")
            os.rename(b"/proc/self/fd/%d/s%d" % (here, i), path)
            os.close(here)
        elif kind == "sparse":
            with open(path, "wb") as file:
                for at in sorted(rng.sample(range(0, 1 << 24, 4096), 3)):
                    file.seek(at)
                    file.write(rng.randbytes(5000))
                file.truncate((1 << 24) + rng.choice((0, 100_000)))
        elif kind == "gone":
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        set_facts(path, kind, rng, root)
    for path, time in times:  # what was made in them has changed them
        os.utime(path, ns=(0, time))


def set_facts(path, kind, rng, root):
    if kind == "link":
        return
    if root:
        os.chown(path, *rng.choice(((0, 0), (1000, 1000), (65534, 1), (65535, 65535))), follow_symlinks=False)
    if kind != "symlink":
        os.chmod(path, rng.choice(MODES) if root or kind not in ("folder", "gone") else 0o755)
    if kind in ("file", "sparse") and rng.random() < 0.2 and (root or os.access(path, os.W_OK)):
        for name, value in rng.sample((("user.a", b"1"), ("user.empty", b""), ("user.bin", bytes(range(256))),
                                       ("user.x=y%", b"="), ("user." + "n" * 200, b"n" * 500)), 2):
            os.setxattr(path, name, value)
    if root and kind == "file" and rng.random() < 0.1:
        os.setxattr(path, "security.capability", CAPABILITY)
    os.utime(path, ns=(0, rng.choice(TIMES)), follow_symlinks=False)


def facts_of(top, owner_from=0):
    """All that a tree is, by name: what `make_tree` makes. Access times are nobody's."""
    top = os.fsencode(top)
    found, links = {}, {}
    for base, folders, files, fd in os.fwalk(top):  # by descriptors: it may be deeper than paths are long
        for name in [b"."] * (base == top) + folders + files:
            path = b"/proc/self/fd/%d/%s" % (fd, name)
            st = os.lstat(path)
            key = os.path.normpath(os.path.join(base[len(top) + 1:], name))
            kind = stat.S_IFMT(st.st_mode)
            if kind not in (stat.S_IFDIR, stat.S_IFCHR):
                links.setdefault(st.st_ino, []).append(key)
            content = (os.readlink(path) if kind == stat.S_IFLNK else
                       hashlib.sha256(open(path, "rb").read()).hexdigest() if kind == stat.S_IFREG else None)
            attributes = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
            found[key] = (oct(st.st_mode), st.st_uid - owner_from, st.st_gid - owner_from, st.st_mtime_ns, content, attributes,
                          st.st_rdev, (st.st_size, st.st_blocks * 512) if kind == stat.S_IFREG else None)
    groups = {key: sorted(names) for names in links.values() for key in names}
    return {key: (groups.get(key), *facts) for key, facts in found.items()}


def seeded(seed=None):
    seed = random.randrange(1 << 32) if seed is None else seed
    return seed, random.Random(seed)
