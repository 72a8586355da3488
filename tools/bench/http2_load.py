"""A load generator for unary gRPC calls that costs next to nothing, so that it is the server that is measured.

Each client is a connection of its own that sends its next request when it has the answer to the last. Only as much of
HTTP/2 is spoken as that needs; answers are not read beyond their frames, so check a server with a real client first.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW = (1 << 31) - 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a header that is not entered into the table (RFC 7541, 6.2.2), without Huffman coding."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def header_block(path: str) -> bytes:
    """Return the request headers of a unary call."""
    headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"localhost")]
    headers += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    return b"".join(_literal(name, value) for name, value in headers)


class Connection:
    """One client."""

    def __init__(self, port: int, path: str, body: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers, self._body = header_block(path), b"\x00" + struct.pack(">I", len(body)) + body
        settings = struct.pack(">HI", 4, WINDOW) + struct.pack(">HI", 5, 16384)
        enlarge = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65535))
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + enlarge)
        self._stream, self._buffer = -1, b""
        self._answered = False
        self.sent = 0.0
        self.received = 0

    def send(self) -> None:
        """Send the next request."""
        self._stream += 2
        self._answered = False
        parts = [frame(HEADERS, END_HEADERS, self._stream, self._headers)]
        for at in range(0, len(self._body), 16384):
            last = at + 16384 >= len(self._body)
            parts.append(frame(DATA, END_STREAM if last else 0, self._stream, self._body[at : at + 16384]))
        self.sent = time.perf_counter()
        self.socket.sendall(b"".join(parts))

    def read(self) -> bool | None:
        """Read what has come; tell whether the request was answered well, `None` for an answer that is not whole."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        self._buffer += chunk
        done = None
        at = 0
        while len(self._buffer) - at >= 9:
            length = int.from_bytes(self._buffer[at : at + 3], "big")
            if len(self._buffer) - at - 9 < length:
                break
            kind, flags = self._buffer[at + 3], self._buffer[at + 4]
            if kind == DATA:
                self._answered |= length > 0
                self.received += length
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                done = self._answered
            elif kind == SETTINGS and not flags & ACK:
                self.socket.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self.socket.sendall(frame(PING, ACK, 0, self._buffer[at + 9 : at + 9 + length]))
            elif kind == GOAWAY:
                raise ConnectionError("the server ended the connection")
            at += 9 + length
        self._buffer = self._buffer[at:]
        if done and self.received > 1 << 29:
            self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self.received)))
            self.received = 0
        return done


class Load:
    """Clients that ask as fast as they are answered.

    Args:
        port: The server's port.
        path: The method, e.g. `/tensorflow.serving.PredictionService/Predict`.
        body: The serialised request.
        clients: How many.
    """

    def __init__(self, port: int, path: str, body: bytes, clients: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._clients = [Connection(port, path, body) for _ in range(clients)]
        for client in self._clients:
            self._selector.register(client.socket, selectors.EVENT_READ, client)

    def run(self, seconds: float) -> tuple[list[tuple[float, float]], int]:
        """Ask for so many seconds.

        Returns:
            When each answer came (`time.perf_counter`) with its latency in seconds, and how many requests failed.
        """
        end = time.perf_counter() + seconds
        answers: list[tuple[float, float]] = []
        failed, open_requests = 0, len(self._clients)
        for client in self._clients:
            client.send()
        while open_requests:
            events = self._selector.select(timeout=30)
            if not events:
                raise TimeoutError("the server has not answered for 30 seconds")
            for key, _ in events:
                client = key.data
                done = client.read()
                if done is None:
                    continue
                now = time.perf_counter()
                answers.append((now, now - client.sent))
                failed += not done
                if now < end:
                    client.send()
                else:
                    open_requests -= 1
        return answers, failed

    def close(self) -> None:
        """End the connections."""
        for client in self._clients:
            client.socket.close()
        self._selector.close()
