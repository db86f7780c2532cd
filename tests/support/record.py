#!/usr/bin/env python3
"""Stands between a client and a stdio server and records every line, both ways, as JSONL:

    record.py FOLDER -- build/src/hutch mcp

For clients that start the server themselves (the SDKs, the Inspector). Ends when the server ends, with its status.
"""
import json
import os
import signal
import subprocess
import sys
import threading


def main():
    split = sys.argv.index("--")
    folder, command = sys.argv[1], sys.argv[split + 1:]
    os.makedirs(folder, exist_ok=True)
    out = open(os.path.join(folder, f"tee-{os.getpid()}.jsonl"), "w", encoding="utf-8")
    lock = threading.Lock()
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _: server.send_signal(n))

    def pump(source, target, direction):
        for line in iter(source.readline, b""):
            try:
                message = json.loads(line)
            except ValueError:
                message = {"not_json": line.decode(errors="replace")}
            with lock:
                out.write(json.dumps({"dir": direction, "message": message}) + "\n")
                out.flush()
            try:
                target.write(line)
                target.flush()
            except BrokenPipeError:
                break
        try:
            target.close()
        except BrokenPipeError:
            pass

    threading.Thread(target=pump, args=(sys.stdin.buffer, server.stdin, "out"), daemon=True).start()
    back = threading.Thread(target=pump, args=(server.stdout, sys.stdout.buffer, "in"), daemon=True)
    back.start()
    status = server.wait()
    back.join(5)
    os._exit(status if status >= 0 else 128 - status)


main()
