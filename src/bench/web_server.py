"""web_server.py PORT: as little of a web server as there can be, on 127.0.0.1. `/` is two bytes, `/N` is N."""
import selectors
import socket
import sys

BLOCK = memoryview(bytes(1 << 20))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
ready = selectors.DefaultSelector()
ready.register(listener, selectors.EVENT_READ)


def accept():
    client = listener.accept()[0]
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ready.register(client, selectors.EVENT_READ)


def answer(client):
    request = client.recv(65536)
    while request and not request.endswith(b"\r\n\r\n"):
        more = client.recv(65536)
        request = more and request + more
    if not request:
        raise ConnectionError
    size = int(request.split(b" ", 2)[1][1:] or 0)
    if not size:
        return client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for start in range(0, size, len(BLOCK)):
        client.sendall(BLOCK[:size - start])


while True:
    for key, _ in ready.select():
        try:
            accept() if key.fileobj is listener else answer(key.fileobj)
        except ConnectionError:
            ready.unregister(key.fileobj)
            key.fileobj.close()
