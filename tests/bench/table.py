#!/usr/bin/env python3
"""The tables of the README from what `hutch bench --json` wrote:

    table.py RESULT COMMAND [README]

Prints Markdown; with README, puts it between the benchmark markers of that file instead."""
import json
import re
import sys

result, command, readme = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
SECTIONS = {name: {e["name"]: e for e in result[name]} for name in ("scenarios", "floors", "peers")}
BEGIN, END = "<!-- begin benchmark -->", "<!-- end benchmark -->"
MIB = 1 << 20


def figure(name, peer=None):
    """{"spaced", "burst"} of a scenario or a floor, or of what a peer measures; {} when it was not measured."""
    if peer:
        figures = SECTIONS["peers"].get(peer, {}).get("figures", [])
        return next((f for f in figures if f["measures"] == name), {})
    return SECTIONS["scenarios"].get(name) or SECTIONS["floors"].get(name) or {}


def value(entry, *path):
    for step in path:
        if not isinstance(entry, dict) or step not in entry:
            return None
        entry = entry[step]
    return entry


def rate(entry, clients):
    return next((c["per_s"] for c in entry.get("cycles", []) if c["clients"] == clients), None)


def number(x):
    if x is None:
        return "-"
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 1 else f"{x:.3f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def verdict(good):
    return "not measured" if good is None else "met" if good else "**not met**"


def ratio_goal(name, ours, other_name, other, limit, goal, plus_ms=0.0, faster=False):
    """One row: ours / other (or other / ours) of the spaced medians, which decide, and of those back to back."""
    medians = {mode: (value(ours, mode, "p50"), value(other, mode, "p50")) for mode in ("spaced", "burst")}
    ratios = {m: None if None in pair else (pair[1] / pair[0] if faster else pair[0] / pair[1]) for m, pair in medians.items()}
    mine, theirs = medians["spaced"]
    good = None
    if ratios["spaced"] is not None:
        good = ratios["spaced"] >= limit if faster else mine <= limit * theirs + plus_ms
    measured = "-" if good is None else f"{number(mine)} ms; {other_name} {number(theirs)} ms"
    return [name, f"{number(ratios['spaced'])} ({number(ratios['burst'])})", goal, verdict(good), measured]


def bound_goal(name, measured, unit, good, goal):
    return [name, "-", goal, verdict(None if measured is None else good(measured)), "-" if measured is None else f"{number(measured)} {unit}".strip()]


def added_goal(name, scenario, limit_ms, goal=None):
    """What `scenario` takes longer than what stands beside it in the same round; the median with pauses decides."""
    added = figure(scenario).get("added", {})
    spaced, burst = (value(added, mode, "p50") for mode in ("spaced", "burst"))
    good = None if spaced is None else spaced <= limit_ms
    measured = "-" if good is None else f"p99 {number(added['spaced']['p99'])} ms"
    for other in figure(scenario).get("beside", []):
        if theirs := value(other, "added", "spaced", "p50"):
            measured += f"; {other['what']} {number(theirs)} ms"
    return [name, f"{number(spaced)} ms ({number(burst)} ms)", goal or f"at most {limit_ms} ms", verdict(good), measured]


def warm_goals():
    warm, ping = figure("create_warm"), figure("ping")
    share = (value(warm, "spaced", "warm") or 0) / max(value(warm, "spaced", "created") or 1, 1)
    if share < 0.9:  # a figure of cold ones would say nothing about warm ones
        warm = {}
    p99 = value(warm, "spaced", "p99")
    return [ratio_goal("warm `sandbox_create` / ping", warm, "ping", ping, 4, "at most 4"),
            bound_goal("warm `sandbox_create`, p99", p99, "ms", lambda ms: ms <= 2, "at most 2 ms")]


def cycle_goal():
    ours = rate(SECTIONS["scenarios"].get("cycles", {}), 4)
    theirs = rate(SECTIONS["peers"].get("crun", {}), 4)
    name = "create + exec + destroy per second, 4 clients / `crun run` in 4 loops"
    if ours is None or theirs is None:
        return [name, "-", "at least 0.8", verdict(None), "-"]
    return [name, number(ours / theirs), "at least 0.8", verdict(ours >= 0.8 * theirs), f"{number(ours)} per s; crun {number(theirs)} per s"]


def beside(name, what):
    """What a scenario was measured in turn with."""
    return next((b for b in figure(name).get("beside", []) if b["what"] == what), {})


def stream_goal():
    entry = figure("port_stream")
    row = ratio_goal("speed of a stream through `sandbox_expose_port` / on host loopback", entry, "host loopback",
                     beside("port_stream", "host loopback"), 0.4, "at least 0.4 or 1 GB/s", faster=True)
    if "bytes" in entry:
        speeds = {e.get("what") if e is not entry else "hutch": entry["bytes"] / 1e6 / e["spaced"]["p50"] for e in (entry, *entry["beside"])}
        row[3] = "met" if speeds["hutch"] >= 1 else row[3]
        row[4] = "; ".join(f"{name} {number(speed)} GB/s" for name, speed in speeds.items())
    return row


def fork_goal(name, copies):
    """Only where files can share blocks; elsewhere each is copied."""
    entry = figure(name)
    shared, bound = value(entry, "shares_blocks"), 50 + 5 * copies
    row = bound_goal(f"`{name}`: {entry.get('what', 'sandbox_fork')}", value(entry, "spaced", "p50"), "ms", lambda ms: ms <= bound,
                     f"at most {bound} ms")
    if shared is False:
        row[3] = "blocks are not shared here"
    return row


def goals():
    scenarios, server = SECTIONS["scenarios"], "server-filesystem"
    steady = value(scenarios.get("hit_ratio", {}), "steady", "hit_ratio") if result["pool"] else None
    rss = value(scenarios.get("rss", {}), "rss", "after_first_call_bytes")
    many = [m for m in scenarios.get("memory", {}).get("memory", []) if "cgroup_bytes_each" in m]
    each = many[-1]["cgroup_bytes_each"] / MIB if many else None
    exec_true = figure("exec_true")
    return warm_goals() + [
        ratio_goal("`sandbox_exec` of true / posix_spawn of it on the host", exec_true, "posix_spawn", figure("floor_spawn_true"), 2,
                   "at most 2, + 0.1 ms", 0.1),
        ratio_goal("`docker exec` of true / `sandbox_exec` of it", exec_true, "docker", figure("exec", "docker exec"), 50, "at least 50",
                   faster=True),
        ratio_goal(f"read of 4 KiB / {server}", figure("read_4k"), server, figure("read_4k", server), 1 / 3, "at most 1/3"),
        ratio_goal(f"start to `initialize` / {server}", figure("start"), server, figure("start", server), 1 / 20, "at most 1/20"),
        ratio_goal("cold `sandbox_create` / bare `crun run`", figure("create_cold"), "crun", figure("create_exec_destroy", "crun"), 1.5,
                   "at most 1.5"),
        cycle_goal(),
        ratio_goal("100 execs at once / 100 posix_spawns side by side", figure("parallel_100"), "posix_spawns", figure("floor_spawn_100"),
                   3, "at most 3"),
        ratio_goal("cold `sandbox_create` from a template / without", figure("from_template"), "without", beside("from_template", "without"),
                   1.5, "at most 1.5"),
        ratio_goal("cold `sandbox_create` from an unpacked image / without", figure("from_image"), "without",
                   beside("from_image", "without"), 1.5, "at most 1.5"),
        ratio_goal("warm `sandbox_create` with a volume / without", figure("with_volume"), "without", beside("with_volume", "without"),
                   float("inf"), "-"),
        ratio_goal("template of a change of 200 MiB / `cp -a` and sync of it", figure("template_200m"), "cp -a and sync",
                   beside("template_200m", "cp -a and sync"), 1.2, "at most 1.2"),
        fork_goal("fork", 1),
        fork_goal("fork_8", 8),
        added_goal("a request through `sandbox_expose_port`, added to host loopback", "port_request", 0.3),
        added_goal("the same with a connection of its own", "port_connect", float("inf"), "-"),
        added_goal("a request through `sandbox_port_url`, added to host loopback", "port_url_request", 0.6),
        stream_goal(),
        added_goal("CONNECT through the proxy, added to a connection on host loopback", "egress_connect", 0.5),
        added_goal("a request in that tunnel, added to host loopback", "egress_request", 0.1, "nothing (at most 0.1 ms)"),
        added_goal("`sandbox_exec` of true with network filtered, added to none", "exec_filtered", float("inf"), "-"),
        bound_goal("share of warm creates at 20 a second", steady, "", lambda share: share >= 0.99, "at least 0.99"),
        bound_goal("server's resident memory, pool empty", None if rss is None else rss / 1e6, "MB", lambda mb: mb < 12, "under 12 MB"),
        bound_goal("memory of an idle sandbox", each, "MiB", lambda mib: mib < 1, "under 1 MiB"),
    ]


def times():
    rows = []

    def add(name, entry):
        if "spaced" in entry:
            spaced, burst = entry["spaced"], entry["burst"]
            rows.append([name, *(number(spaced.get(p)) for p in ("p50", "p90", "p99")),
                         *(number(burst.get(p)) for p in ("p50", "p90", "p99")), number(burst["cpu_ms"])])

    for section in ("scenarios", "floors"):
        for entry in SECTIONS[section].values():
            add(entry["what"] if section == "floors" or entry["what"] == entry["name"] else f"`{entry['name']}`: {entry['what']}", entry)
            for other in entry.get("beside", []):
                add(f"`{entry['name']}`: {other['what']}", other)
    for peer in SECTIONS["peers"].values():
        for f in peer.get("figures", []):
            add(f"{peer['name']}: {f['measures']}", f)
    return table(["ms", "p50", "p90", "p99", "p50 back to back", "p90", "p99", "CPU"], rows) if rows else ""


def cycles():
    entries = {"hutch": SECTIONS["scenarios"].get("cycles", {}), **SECTIONS["peers"]}
    rows = [[name, *(number(rate(entry, n)) for n in (1, 2, 4, 8)), *(number(c["cpu_ms"]) for c in entry["cycles"] if c["clients"] == 4)]
            for name, entry in entries.items() if entry.get("cycles")]
    return table(["create, run true, destroy: per second", "1 client", "2", "4", "8", "CPU ms each (4 clients)"], rows) if rows else ""


def left_out():
    said = [f"{e['name']}: {e.get('missing') or 'failed: ' + e['failed'].splitlines()[0]}" for section in SECTIONS.values()
            for e in section.values() if "missing" in e or "failed" in e]
    return "Not measured: " + "; ".join(said) + "." if said else ""


def page():
    machine, load = result["machine"], round(100 * result["background_load"])
    about = (f"`{command}` on {result['date'][:10]}: {machine['cpu']}, {machine['cores']} processors, Linux {machine['kernel']}, "
             f"cgroup {machine['cgroup']}; {load} % of the processors were busy with other things when it began. Medians with pauses "
             "between calls decide; those back to back stand in brackets. Timed at the client's end of the pipe.")
    notes = "; ".join(f"{p['name']}: {p['note']}" for p in SECTIONS["peers"].values() if "note" in p)
    cpu = ("CPU is the processor time of the whole machine per operation, back to back, with client, daemons and whatever else ran. "
           + (f"Peers: {notes}." if notes else ""))
    return "\n\n".join(part for part in (
        about, table(["figure", "ratio (back to back)", "goal", "", "measured"], goals()), times(), cycles(), cpu.strip(), left_out()) if part)


if not readme:
    print(page())
else:
    with open(readme, encoding="utf-8") as f:
        text = f.read()
    if BEGIN not in text or END not in text:
        sys.exit(f"{readme} has no {BEGIN} and {END}")
    new = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{page()}\n{END}", text, flags=re.S)
    with open(readme, "w", encoding="utf-8") as f:
        f.write(new)
    print(f"{readme}: tables written")
