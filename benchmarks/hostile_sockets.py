"""What does not speak HTTP/2, or speaks it badly: bytes for raw connections to a gRPC server.

    with Connections(host, port) as connections:
        connections.open(random.Random(1))      # sends, and leaves the connection open; the oldest one is closed
"""

import collections
import contextlib
import random
import socket
import struct
from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _END_HEADERS = 1, 4
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_FRAMES = {_DATA: "data", _HEADERS: "headers", _RST: "reset", _SETTINGS: "settings", _PING: "ping", _GOAWAY: "goaway", _WINDOW: "window"}
_READ_SECONDS = 2.0


class Connections:
    """Connections that are left open, the newest `keep` of them: half-open ones are part of the attack.

    Attributes:
        outcomes: how often what came back was what.
    """

    def __init__(self, host: str, port: int, keep: int = 12):
        self._address, self._keep = (host, port), keep
        self._open: collections.deque[socket.socket] = collections.deque()
        self.outcomes: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> "Connections":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        while self._open:
            self._close()

    def open(self, draw: random.Random) -> bytes:
        """Connect and send something; returns it."""
        data = attack(draw)
        connection = socket.create_connection(self._address, timeout=_READ_SECONDS)
        with contextlib.suppress(OSError):
            connection.sendall(data)
            if draw.random() < 0.3:
                connection.shutdown(socket.SHUT_WR)
        self._open.append(connection)
        while len(self._open) > self._keep:
            self._close()
        return data

    def _close(self) -> None:
        connection = self._open.popleft()
        connection.setblocking(False)
        received, ended = b"", False
        try:
            while chunk := connection.recv(1 << 16):
                received += chunk
            ended = True
        except BlockingIOError:
            pass
        except OSError:
            ended = True
        connection.close()
        kinds = frames(received)
        what = next((name for name in ("headers", "reset", "goaway", "settings") if name in kinds), "nothing" if not received else "other")
        self.outcomes[f"{what}{', closed' if ended else ''}"] += 1


def frames(received: bytes) -> list[str]:
    """The types of the frames in what a server sent."""
    kinds = []
    while len(received) >= 9:
        kinds.append(_FRAMES.get(received[3], "?"))
        received = received[9 + int.from_bytes(received[:3], "big") :]
    return kinds


def attack(draw: random.Random) -> bytes:
    """Bytes for a connection."""
    begin = PREFACE + frame(_SETTINGS, b"")
    call_headers, changed = headers(), headers(draw.choice(_HEADER_CHANGES))
    call = begin + frame(_HEADERS, call_headers, _END_HEADERS, 1)
    message = draw.randbytes(draw.choice((0, 5, 300)))
    odd = draw.choice((0, 1, 2, 3, 2**31 - 1))
    return draw.choice(
        (
            lambda: b"",
            lambda: draw.randbytes(draw.choice((1, 24, 1000))),
            lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(200),
            lambda: PREFACE[: draw.randrange(24)],
            lambda: PREFACE + draw.randbytes(draw.choice((3, 9, 500))),
            lambda: begin + b"".join(_random_frame(draw, odd) for _ in range(5)),
            lambda: begin + frame(_HEADERS, draw.randbytes(60), _END_HEADERS, 1),
            lambda: begin
            + frame(_HEADERS, call_headers[:-20], 0, 1)
            + frame(_CONTINUATION, call_headers[: draw.randrange(20)], 0, 1) * 200,
            lambda: begin + struct.pack(">I", 2**24 - 1)[1:] + bytes([draw.randrange(10), 0]) + struct.pack(">I", 1) + b"x" * 100,
            lambda: begin + frame(_SETTINGS, draw.randbytes(6 * draw.randrange(5))) * draw.choice((1, 50)),
            lambda: begin + frame(_PING, b"12345678") * 300,
            lambda: begin + frame(_WINDOW, struct.pack(">I", draw.choice((0, 1, 2**31 - 1))), 0, odd) * 3,
            lambda: begin + b"".join(_reset_call(2 * number + 1) for number in range(100)),
            lambda: begin + frame(_HEADERS, changed, _END_HEADERS | _END_STREAM, 1),
            lambda: begin + frame(_HEADERS, changed, _END_HEADERS, 1) + frame(_DATA, grpc_frame(b""), _END_STREAM, 1),
            lambda: call,
            lambda: call + frame(_DATA, grpc_frame(message)[: draw.randrange(6)], draw.choice((0, 0, _END_STREAM)), 1),
            lambda: call + frame(_DATA, grpc_frame(message, flag=draw.choice((1, 2, 255))), _END_STREAM, 1),
            lambda: call + frame(_DATA, grpc_frame(message, size=draw.choice((2**32 - 1, 2**31, 2**26))), draw.choice((0, _END_STREAM)), 1),
            lambda: call + frame(_DATA, grpc_frame(message) * 5, _END_STREAM, 1),
            lambda: call + frame(_DATA, grpc_frame(message)) + frame(_DATA, b"x", 0, 2),
            lambda: call + frame(_DATA, grpc_frame(message), _END_STREAM, 1) + frame(_RST, b"\0\0\0\x08", 0, 1),
        )
    )()


def headers(changes: dict[str, bytes | None] | None = None) -> bytes:
    """The header block of a call, each field literal and without indexing (RFC 7541, 6.2.2); None leaves a field out."""
    fields: dict[str, bytes | None] = {
        ":method": b"POST", ":scheme": b"http", ":path": _PREDICT.encode(), ":authority": b"x", "te": b"trailers",
        "content-type": b"application/grpc",
    }  # fmt: skip
    fields.update(changes or {})
    return b"".join(
        b"\0" + _string(name.encode("latin-1")) + _string(value) for name, value in fields.items() if value is not None
    )


_HEADER_CHANGES: tuple[dict[str, bytes | None], ...] = (
    {":path": None}, {":path": b""}, {":path": b"\xff\xfe"}, {":path": b"/\0"}, {":path": b"p" * 7000}, {":method": b"GET"},
    {":method": None}, {":scheme": b"ftp"}, {":authority": None}, {":status": b"200"}, {"te": None}, {"content-type": b"text/html"},
    {"content-type": None}, {"grpc-encoding": b"gzip"}, {"grpc-encoding": b"\xff"}, {"grpc-timeout": b"0n"}, {"grpc-timeout": b"-1S"},
    {"grpc-timeout": b"99999999999999H"}, {"grpc-timeout": b"x"}, {"x-bin": b"!!!"}, {"x": b"\xff\0\n"}, {"X": b"y"}, {"": b""},
    {"grpc-status": b"0"}, {"grpc-accept-encoding": b"," * 500}, {"x" * 3000: b"y" * 3000}, {"grpc-tags-bin": b"\xff"},
)  # fmt: skip


def grpc_frame(message: bytes, flag: int = 0, size: int | None = None) -> bytes:
    """A gRPC message in its frame, which may tell lies of it."""
    return struct.pack(">BI", flag, len(message) if size is None else size) + message


def frame(kind: int, payload: bytes, flags: int = 0, stream: int = 0) -> bytes:
    """An HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _random_frame(draw: random.Random, stream: int) -> bytes:
    return frame(draw.randrange(12), draw.randbytes(draw.randrange(40)), draw.randrange(256), stream)


def _reset_call(stream: int) -> bytes:
    return frame(_HEADERS, headers(), _END_HEADERS, stream) + frame(_RST, b"\0\0\0\x08", 0, stream)


def _string(value: bytes) -> bytes:
    if len(value) < 127:
        return bytes([len(value)]) + value
    out, rest = bytearray(b"\x7f"), len(value) - 127
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest]) + value
