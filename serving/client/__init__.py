"""The client: sums of Python integers of any size, computed by a served model.

    with AdderClient("127.0.0.1:8500") as client:
        client.add(13, 29)                                   # 42
        client.add_many([(1, 2), (2**4096, 5)])

Numbers larger than memory are streamed as little-endian bytes, piece by piece:

        for piece in client.add_stream(FilePieces("a.bin"), FilePieces("b.bin")):
            ...

A model for another task (components.task.transducer) has the same interface:

        client.subtract(13, 29)                              # -16
        client.is_greater(13, 29)                            # False
        client.apply(SUBTRACTION, [(1, 2), (2**4096, 5)])

Its signatures are named after its task, so a server refuses to subtract with a model that adds (InvalidRequest, which
names the model's task). Models of the first export format have the signature names of addition whatever they compute;
the caller has to know their task and uses `AdderClient(..., signature="add_bits")`.

serving.client.aio is the same for asyncio. Any number of calls may be made at the same time: four of them run, and the
others wait for their turn (`max_concurrent_calls`). Every call has a deadline, which begins with its turn. Until the
deadline, a call is repeated after growing random pauses while the server is busy; while it is UNAVAILABLE, a call has
at most `attempts` attempts.

The errors:

BitsumError
└── ServingError            any failure of a call; `code` is the name of the gRPC status code, or ""
    ├── ServerUnavailable   no server listens there or the connection broke, at every attempt; or TLS failed
    ├── DeadlineExceeded    no answer within the deadline
    ├── ServerBusy          the server accepted no further request until the deadline, or a message is too large
    ├── ModelNotFound       no such model, or no such version of it
    │   └── VersionGone     the version was unloaded in the middle of a stream that cannot restart by itself
    ├── InvalidRequest      unknown label or signature, a model for another task, or the graph refused its inputs
    ├── BadResponse         an answer of the wrong dtype or shape, or with bits other than 0 and 1
    ├── ClientClosed        the client was closed before or during the call, or belongs to another running event loop
    ├── InvalidNumber       refused before anything is sent: negative, or not an integer
    └── InvalidAddress      refused before any call: neither HOST:PORT nor a name that gRPC resolves

The client checks the form of an answer, not its arithmetic; `bitsum probe` checks that.
"""

from serving.client.aio import AsyncAdderClient
from serving.client.streaming import FilePieces
from serving.client.sync import AdderClient
from serving.errors import (
    BadResponse,
    ClientClosed,
    DeadlineExceeded,
    InvalidAddress,
    InvalidNumber,
    InvalidRequest,
    ModelNotFound,
    ServerBusy,
    ServerUnavailable,
    ServingError,
    VersionGone,
)

__all__ = [
    "AdderClient",
    "AsyncAdderClient",
    "BadResponse",
    "ClientClosed",
    "DeadlineExceeded",
    "FilePieces",
    "InvalidAddress",
    "InvalidNumber",
    "InvalidRequest",
    "ModelNotFound",
    "ServerBusy",
    "ServerUnavailable",
    "ServingError",
    "VersionGone",
]
