"""The client: Python integers of any size in, their sums out, added by the model that a server serves.

    with AdderClient("127.0.0.1:8500") as client:
        client.add(13, 29)                                   # 42
        client.add_many([(1, 2), (2**4096, 5)])

Numbers that do not fit in memory go through as little-endian bytes, piece by piece:

        for piece in client.add_stream(FilePieces("a.bin"), FilePieces("b.bin")):
            ...

A model for another task (components.task.transducer) is asked in the same way:

        client.subtract(13, 29)                              # -16
        client.is_greater(13, 29)                            # False
        client.apply(SUBTRACTION, [(1, 2), (2**4096, 5)])

Its signatures are named after its task, so a server refuses to subtract by a model that adds (InvalidRequest, which
says what the model is for). Models of the first export format have the names of addition whatever they compute: the
caller has to know, and asks them through `AdderClient(..., signature="add_bits")`.

serving.client.aio has the same for asyncio. Every call has a deadline, and is tried again while the server is
UNAVAILABLE. What can go wrong:

BitsumError
└── ServingError            any failure of asking; `code` is the gRPC status code's name, where there is one
    ├── ServerUnavailable   nobody listens there, or the connection broke, at every attempt
    ├── DeadlineExceeded    no answer within the deadline
    ├── ServerBusy          the server works on as many requests as it takes
    ├── ModelNotFound       no such model, or no such version of it
    │   └── VersionGone     the version went away in the middle of a stream, which cannot begin again by itself
    ├── InvalidRequest      unknown label or signature, a model for another task, or the graph refused its inputs
    ├── BadResponse         an answer of the wrong dtype or shape, or with bits other than 0 and 1
    └── InvalidNumber       refused before anything is sent: negative, or no integer

An answer is whatever the model computed: the client checks the form of an answer, `bitsum probe` the arithmetic.
"""

from serving.client.aio import AsyncAdderClient
from serving.client.streaming import FilePieces
from serving.client.sync import AdderClient
from serving.errors import (
    BadResponse,
    DeadlineExceeded,
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
    "DeadlineExceeded",
    "FilePieces",
    "InvalidNumber",
    "InvalidRequest",
    "ModelNotFound",
    "ServerBusy",
    "ServerUnavailable",
    "ServingError",
    "VersionGone",
]
