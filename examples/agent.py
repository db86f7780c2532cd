#!/usr/bin/env python3
"""A tiny agent loop on hutch, in the style of an agent framework and with nothing but Python's standard library.

    examples/agent.py [path/to/hutch]

A real agent asks a model what to do next; here a fixed plan stands in for it. Everything else is as it would be:
tools are offered with their schemas, calls go over MCP with structured results, and what comes back decides.
"""
import itertools
import json
import subprocess
import sys


class Hutch:
    """An MCP client for one server: starts it, lists its tools, calls them."""

    def __init__(self, program="hutch"):
        self.process = subprocess.Popen([program, "mcp", "--results", "structured"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ids = itertools.count(1)
        self.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {},
                                    "clientInfo": {"name": "agent.py", "version": "1"}})
        self.send({"method": "notifications/initialized"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()  # the end of stdin ends the server and its sandboxes
        self.process.wait(10)

    def send(self, message):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def request(self, method, params):
        number = next(self.ids)
        self.send({"id": number, "method": method, "params": params})
        for line in self.process.stdout:
            message = json.loads(line)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
        raise RuntimeError("the server ended")

    def tools(self):
        """In the form that model APIs take."""
        return [{"name": t["name"], "description": t["description"], "input_schema": t["inputSchema"]}
                for t in self.request("tools/list", {})["tools"]]

    def call(self, name, **arguments):
        """(result, error): what the tool returned, or what it could not do and what to try."""
        result = self.request("tools/call", {"name": name, "arguments": arguments})
        structured = result.get("structuredContent") or {}
        return (None, structured.get("error")) if result.get("isError") else (structured, None)


def fake_model(seen):
    """The plan: write a program, run it, mend it when it fails, stop when it works."""
    if not seen:
        return "sandbox_write_file", {"path": "mean.py", "content": "def mean(v):\n    return sum(v) / len(v)\n\nprint(mean([]))\n"}
    last = seen[-1]
    if "bytes_written" in last or "replacements" in last:
        return "sandbox_exec", {"command": "python3 mean.py"}
    if "ZeroDivisionError" in last.get("stderr", ""):
        return "sandbox_edit_file", {"path": "mean.py", "edits": [
            {"old_str": "sum(v) / len(v)", "new_str": "sum(v) / len(v) if v else 0.0"}]}
    return None


def main():
    with Hutch(*sys.argv[1:2]) as hutch:
        print(f"{len(hutch.tools())} tools offered")
        seen = []
        while action := fake_model(seen):
            name, arguments = action
            result, error = hutch.call(name, **arguments)
            if error:
                sys.exit(f"{name}: {error['message']}\n{error.get('hint', '')}")
            seen.append(result)
            print(f"{name}: " + (f"exit {result['exit_code']}: {(result['stdout'] + result['stderr']).strip().splitlines()[-1]}"
                                 if "exit_code" in result else result["path"]))
        print("done" if seen[-1].get("exit_code") == 0 else "gave up")


if __name__ == "__main__":
    main()
