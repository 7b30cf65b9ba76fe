"""Which of the known names a mistyped one was meant to be."""

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of an error about an unknown `name`: the known one that is most like it, with `prefix` before it, or
    nothing."""
    import difflib

    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
