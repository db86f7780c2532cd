#!/usr/bin/env python3
"""Compares schemas/ and the tables of README.md with what the code gives: generated.py GENERATOR PROJECT

With HUTCHTEST_ACCEPT=1 they are rewritten instead."""
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile

generator, project = sys.argv[1:]
if os.environ.get("HUTCHTEST_ACCEPT"):
    shutil.rmtree(os.path.join(project, "schemas"), ignore_errors=True)
    subprocess.run([generator, project], check=True)
    print("rewritten")
    sys.exit(77)

with tempfile.TemporaryDirectory() as folder:
    shutil.copy(os.path.join(project, "README.md"), folder)
    subprocess.run([generator, folder], check=True)
    wrong = [] if filecmp.cmp(f"{folder}/README.md", f"{project}/README.md", shallow=False) else ["README.md"]
    names = lambda root: {os.path.relpath(os.path.join(at, f), root) for at, _, fs in os.walk(f"{root}/schemas") for f in fs}
    made, kept = names(folder), names(project)
    wrong += [f"{name} is missing" for name in made - kept] + [f"{name} is not made any more" for name in kept - made]
    wrong += [n for n in made & kept if not filecmp.cmp(f"{folder}/{n}", f"{project}/{n}", shallow=False)]

for name in sorted(wrong):
    print(f"differs from the code: {name}")
if wrong:
    sys.exit("run it with HUTCHTEST_ACCEPT=1: meson test -C build generated")
