"""Makes text safe for a terminal, a log or a page of metrics: names come from files, requests and other servers.

Such a name may hold control sequences for a terminal, reverse the order of letters, or be invalid text. Unescaped, it
could erase a line and print another one. So every line that leaves the process goes through `say` or `printable`.
"""

import sys
from typing import TextIO


def printable(text: str) -> str:
    """`text` as one line, with unprintable characters escaped as in Python: \\x1b, \\n, \\u202e or \\udcff.

    These are Unicode's control and format characters (including bidirectional and zero-width ones), separators except
    the space, lone surrogates, and private or unassigned code points.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def say(*lines: str, stream: TextIO | None = None) -> None:
    """Write each of `lines` as one line to `stream` (by default standard output) and flush it.

    Characters outside of the stream's encoding are escaped as well.

    Raises:
        OSError: the stream cannot be written; the error names it.
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
