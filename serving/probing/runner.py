"""Runs watches (serving.probing.monitor) in parallel until they end, time is up, or SIGTERM or SIGINT arrives."""

import concurrent.futures
import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from components.printable import say
from serving.client import AdderClient
from serving.probing.monitor import Watch
from serving.probing.report import stamp

# Time for calls in flight at the end.
_GRACE_SECONDS = 2.0


def line_printer(stream: TextIO) -> Callable[[str], None]:
    """A thread-safe function that writes a line with a timestamp to `stream`."""
    return lambda text: say(f"{stamp()} {text}", stream=stream)


def run(
    watches: Sequence[Watch],
    clients: Sequence[AdderClient],
    duration: float | None,
    report_every: float,
    log: Callable[[str], None],
) -> None:
    """Run until all `watches` end, for `duration` seconds (None for no limit), or until a signal.

    An exception in a watch is raised here; a server that does not answer causes none.

    Args:
        clients: the watches' clients, closed if a call does not end.
        report_every: seconds between two summaries of each target.
    """
    stop = threading.Event()
    ended: queue.SimpleQueue = queue.SimpleQueue()
    with concurrent.futures.ThreadPoolExecutor(len(watches), "probe") as threads, _signals(ended):
        running = [threads.submit(watch.run, stop) for watch in watches]
        for future in running:
            future.add_done_callback(ended.put)
        try:
            if _wait(watches, ended, duration, report_every, log):
                for watch in watches:
                    watch.cut_off()
        finally:
            stop.set()
            if concurrent.futures.wait(running, _GRACE_SECONDS).not_done:
                for client in clients:
                    client.close()
    for future in running:
        future.result()


def _wait(
    watches: Sequence[Watch],
    ended: queue.SimpleQueue,
    duration: float | None,
    report_every: float,
    log: Callable[[str], None],
) -> bool:
    """Log the summaries; return whether a signal ended the wait."""
    now = time.monotonic()
    end, next_report = float("inf") if duration is None else now + duration, now + report_every
    left = len(watches)
    while left and now < end:
        try:
            future = ended.get(timeout=max(0.0, min(end, next_report) - now))
        except queue.Empty:
            future = None
        else:
            if future is None:
                return True
            if future.exception():
                return False
            left -= 1
        now = time.monotonic()
        if now >= next_report:
            next_report = now + report_every
            for watch in watches:
                log(watch.period().line(watch.target))
    return False


@contextlib.contextmanager
def _signals(ended: queue.SimpleQueue) -> Iterator[None]:
    """Put None for each SIGTERM or SIGINT; a signal handler may use a SimpleQueue."""
    before = {number: signal.signal(number, lambda *_: ended.put(None)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
