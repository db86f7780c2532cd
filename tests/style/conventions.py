#!/usr/bin/env python3
"""Rules that no compiler checks. Each failure names file, line and the rule."""
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAX_FUNCTION_LINES = 70
problems = []


def say(path, number, text):
    problems.append(f"{path.relative_to(ROOT)}:{number}: {text}")


def tracked():
    """All files of the project, committed or about to be."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / n for n in names.stdout.splitlines() if (ROOT / n).is_file()]


def code():
    return sorted(p for top in ("src", "tools") for kind in ("*.cpp", "*.h") for p in ROOT.glob(f"{top}/**/{kind}"))


def fds_are_cloexec_from_birth():
    """A descriptor without CLOEXEC leaks into every child that another thread starts. The agent is single-threaded
    and has a table of its own."""
    call = re.compile(r"(?<![\w.>:])(?:::)?(open|openat|socket|socketpair|pipe|pipe2|accept|accept4|dup|dup3|epoll_create1|"
                      r"eventfd|timerfd_create|signalfd|memfd_create|inotify_init1|fopen|creat)\s*\(")
    always_wrong = {"pipe", "accept", "dup", "creat"}
    for path in code():
        if "agent" in path.relative_to(ROOT).parts or path.name.startswith("sys."):
            continue
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            bare = line.split("//")[0]
            found = call.search(bare)
            if not found or re.match(r"\s*(\*|///)", line) or f'"{found[1]}' in bare:
                continue
            # A member or a wrapper of this name is declared, not called: a type stands before it.
            if re.match(r"\s*(?:\[\[nodiscard\]\] )?(?:static |inline |virtual )*[\w:<>&*]+ (?:\w+::)*" + found[1] + r"\s*\(", bare) \
                    and not re.match(r"\s*return\b", bare):
                continue
            statement = " ".join(lines[number - 1:number + 3])
            if found[1] in always_wrong or not re.search(r'CLOEXEC|"\w*e\w*"', statement):
                say(path, number, f"{found[1]}() without CLOEXEC: use base/sys.h or the flag")


def functions_are_short():
    ctags = shutil.which("ctags")
    if not ctags or "Universal" not in subprocess.run([ctags, "--version"], capture_output=True, text=True).stdout:
        print("skip functions are short: universal-ctags is not installed")
        return
    for path in code():
        out = subprocess.run([ctags, "-x", "--c++-kinds=f", "--_xformat=%n %e %N", str(path)], capture_output=True, text=True)
        for line in out.stdout.splitlines():
            start, end, name = line.split(" ", 2)
            if end.isdigit() and int(end) - int(start) + 1 > MAX_FUNCTION_LINES:
                say(path, start, f"{name} has {int(end) - int(start) + 1} lines, more than {MAX_FUNCTION_LINES}")


def paths_in_the_readme_exist():
    readme = ROOT / "README.md"
    if not readme.exists():
        problems.append("README.md: there is none")
        return
    tops = {p.name for p in ROOT.iterdir()}
    text = readme.read_text()
    for found in re.finditer(r"`((?:\./)?[\w.\-]+(?:/[\w.\-{},*]+)+/?)`|\]\(([^)#:]+)\)", text):
        path = (found[1] or found[2]).removeprefix("./")
        if found[1] and path.split("/")[0] not in tops:
            continue  # a path inside a sandbox, a protocol method
        if path.split("/")[0] in ("build", "build-asan", "build-tsan"):
            continue
        options = [path]
        if brace := re.search(r"\{([^}]*)\}", path):
            options = [path[:brace.start()] + o + path[brace.end():] for o in brace[1].split(",")]
        for option in options:
            if not list(ROOT.glob(option.rstrip("/"))):
                say(readme, text[:found.start()].count("\n") + 1, f"{option} does not exist")


def nothing_names_a_developers_machine():
    """Folders and hosts of one workplace mean nothing to a user."""
    # Put together from parts, so that this file does not name them itself.
    wrong = re.compile("|".join(("/" + "work/", r"/root/\.pyenv", "registry\\." + "npmjs", "deb\\." + "debian\\.org", r"/home/\w+/(?:src|code|work)")))
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if found := wrong.search(line):
                say(path, number, f"names {found[0]}")


def hints_name_something():
    """`hint("...")` must help: it names a tool, an option, a file, a command or an argument."""
    names = re.compile(r"sandbox_\w+|hutch\b|--|/\w+|apt-get|[\w]+_\w+|\{\}|`|'")
    for path in code():
        text = path.read_text()
        for found in re.finditer(r'\bhint\(\s*(?:fmt::format\(\s*)?((?:"(?:[^"\\]|\\.)*"\s*)+)', text):
            words = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', found[1]))
            if not names.search(words):
                say(path, text[:found.start()].count("\n") + 1, f'hint names nothing to use: "{words}"')


def lock_files_name_no_host():
    for path in ROOT.glob("*/**/package-lock.json"):
        if "node_modules" not in path.parts and '"resolved"' in path.read_text():
            say(path, 1, "has resolved URLs: npm install with the .npmrc beside it")


RULES = (fds_are_cloexec_from_birth, functions_are_short, paths_in_the_readme_exist, nothing_names_a_developers_machine,
         hints_name_something, lock_files_name_no_host)
failed = 0
for rule in RULES:
    before = len(problems)
    rule()
    failed += len(problems) > before
    print(f"{'FAIL' if len(problems) > before else 'ok  '} {rule.__name__.replace('_', ' ')}")
    for problem in problems[before:]:
        print(f"    {problem}")
print(f"{len(RULES) - failed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed else 0)
