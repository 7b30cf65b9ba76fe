"""Waiting for something that another program has: who has it is told, and told again; it can be interrupted, and it
ends."""

import time
from collections.abc import Callable

from components.errors import BitsumError

_ASK_AGAIN_SECONDS = 0.5
_SAY_AGAIN_SECONDS = 10.0


def until_free(holder: Callable[[], str], say: Callable[[str], None], limit: float, knob: str) -> None:
    """Ask for `holder` until it is empty; else it says in words who has what is waited for.

    Args:
        holder: asked about twice a second; takes what is waited for when it is free.
        say: told in one line whom it waits for, at first, when that is another one, and every ten seconds.
        limit: seconds after which it is given up.
        knob: where the limit is set, for the error.

    Raises:
        BitsumError: it was given up; the line says for whom it waited.
    """
    began = said = time.monotonic()
    before = ""
    while found := holder():
        now = time.monotonic()
        if now - began >= limit:
            raise BitsumError(
                f"gave up after {knob} = {limit:g} s of waiting for {found}; stop that, or set {knob} higher"
            )
        if found != before or now - said >= _SAY_AGAIN_SECONDS:
            say(f"waiting for {found}" + (f"; {now - began:.0f} s so far" if before else ""))
            before, said = found, now
        time.sleep(min(_ASK_AGAIN_SECONDS, limit))
