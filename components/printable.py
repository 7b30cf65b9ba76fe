"""How text reaches a terminal, a log or a page of metrics: names in it come from files, requests and other servers.

Such a name may hold what steers a terminal, turns the order of letters around, or is no text at all. Written as it is,
it could erase a line and print another one. So every line that leaves the process goes through `say` or `printable`.
"""

import sys
from typing import TextIO


def printable(text: str) -> str:
    """`text` as one line that shows what it holds: what is not printable is written as in Python, \\x1b, \\n, \\u202e
    or \\udcff.

    That is all of Unicode's control and format characters (bidirectional ones and those without a width too),
    separators but the space, lone surrogates, and what is private or unassigned.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def say(*lines: str, stream: TextIO | None = None) -> None:
    """Write each of `lines` as one line to `stream`, standard output unless it is given, at once.

    What the stream's encoding cannot express is escaped as well.

    Raises:
        OSError: it cannot be written; it names the stream, as others name their file.
    """
    stream = sys.stdout if stream is None else stream
    text = "".join(f"{printable(line)}\n" for line in lines)
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        error.filename = error.filename or ("standard error" if stream is sys.stderr else "standard output")
        raise
