#!/usr/bin/env python3
"""Fails when an #include goes against the layers: nothing includes upwards. Reports file, line and the rule."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What each folder may include besides itself. Written out in full, so that the table can be read without thinking.
MAY = {
    "src/base": set(),
    "src/schema": {"src/base"},
    "src/config": {"src/schema", "src/base"},
    "src/wire": {"src/base"},
    "src/agent": {"src/wire", "src/base"},
    "src/runtime": {"src/base", "src/config", "src/wire", "src/schema"},
    "src/net": {"src/base", "src/config", "src/schema"},
    "src/sandbox": {"src/net", "src/runtime", "src/base", "src/config", "src/wire", "src/schema"},
    "src/rpc": {"src/base"},
    "src/bench": {"src/base"},  # a client: it knows the program only from outside
    "src/mcp": {"src/rpc", "src/schema", "src/base"},
    "tools": {"src/mcp", "src/sandbox", "src/net", "src/runtime", "src/rpc", "src/schema", "src/config", "src/base", "src/wire"},
}
FREE = {"src", "src/cli"}  # wiring: may include everything


def folder_of(path):
    parts = path.relative_to(ROOT).parts
    return "tools" if parts[0] == "tools" else "/".join(parts[:2]) if len(parts) > 2 else "src"


def main():
    checked, wrong = 0, []
    for path in sorted([*ROOT.glob("src/**/*.h"), *ROOT.glob("src/**/*.cpp"), *ROOT.glob("tools/**/*.h"),
                        *ROOT.glob("tools/**/*.cpp")]):
        mine = folder_of(path)
        if mine not in MAY and mine not in FREE:
            wrong.append(f"{path.relative_to(ROOT)}: folder {mine} is not in the layer table of tests/style/layers.py")
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not found:
                continue
            checked += 1
            # Includes are written from src/, from the project's root or beside the file.
            places = [path.parent / found[1], ROOT / "src" / found[1], ROOT / found[1]]
            target = next((p.resolve() for p in places if p.exists()), None)
            if target is None or ROOT not in target.parents:
                continue  # generated or from a library
            other = folder_of(target)
            if mine not in FREE and other != mine and other not in MAY[mine]:
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {mine} may not include {other} ({found[1]})")
    print("\n".join(wrong) if wrong else f"layers: {checked} includes follow the table")
    if not checked:
        print("layers: found no include at all")
    sys.exit(1 if wrong or not checked else 0)


main()
