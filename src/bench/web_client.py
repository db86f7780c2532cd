"""web_client.py HOST:PORT: asks a web server, through the proxy that the environment names if it names one.

For each line of input it does once what the line says and prints how many ms that took."""
import os
import socket
import sys
import time
import urllib.parse

REST_S = 0.002  # so that whoever has brought the line is at rest again
origin = sys.argv[1]
way = urllib.parse.urlsplit(os.environ.get("https_proxy", f"http://{origin}"))


def ask(connection, request, end):
    connection.sendall(f"{request} HTTP/1.1\r\nHost: {origin}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(end):
        more = connection.recv(65536)
        answer += more
        if not more or not answer.startswith(b"HTTP/1.1 200"):
            sys.exit(f"{request} through {way.netloc}: {answer!r}")


def connected():
    connection = socket.create_connection((way.hostname, way.port), 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if way.netloc != origin:
        ask(connection, f"CONNECT {origin}", b"\r\n\r\n")
    return connection


def connect():
    with connected() as connection:
        ask(connection, "GET /", b"ok")


kept = connected()
actions = {"connect\n": connect, "request\n": lambda: ask(kept, "GET /", b"ok")}
for line in sys.stdin:
    time.sleep(REST_S)
    start = time.perf_counter()
    actions[line]()
    print((time.perf_counter() - start) * 1000, flush=True)
