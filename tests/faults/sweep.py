"""The sweep, in the manner of SQLite: an operation is done once for each fault of each of its steps, and looked at from
outside.

A scenario does one thing that a user does. After each fault what is visible must be whole, what was claimed must be so,
and the next time must succeed and leave nothing behind.
"""

import dataclasses
import gc
import logging
import os
import pathlib
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults.injector import ERRORS, KILL, Fault, Injector, faults

# Of the small form: a prime, so that every kind of fault is met at every kind of operation.
_STRIDE = 23
_HANGS_SECONDS = 20


@dataclasses.dataclass
class Outcome:
    """The outcome of an operation: `value`, or the `error` that it raised; neither if its process was killed."""

    value: Any = None
    error: BaseException | None = None
    killed: bool = False

    @property
    def claim(self) -> str:
        """The outcome in words, for a report."""
        return "killed" if self.killed else repr(self.error or self.value)


class Scenario:
    """One operation of a user, in the folder `root`, which `prepare` fills. Subclasses say what is right."""

    name = ""
    # The errors that an operation other than one on a file may end with, by its name.
    other_errors: dict[str, tuple[str, ...]] = {}

    def __init__(self, root: pathlib.Path):
        self.root = root

    def prepare(self) -> None:
        """Fill the folder."""

    def act(self, injector: Injector) -> Any:
        """The operation itself."""
        raise NotImplementedError

    def violations(self, outcome: Outcome) -> Iterator[str]:
        """The violations after `outcome`."""
        raise NotImplementedError

    def afterwards(self) -> Iterator[str]:
        """Do the next operation of the kind; what is wrong then. An exception is a violation, too."""
        raise NotImplementedError


@dataclasses.dataclass
class Counts:
    """The counts and the violations of a sweep."""

    name: str
    operations: int = 0
    faults: int = 0
    violations: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.name:<12} {self.operations:>5} operations {self.faults:>6} faults "
            f"{len(self.violations):>4} violations"
        )


def sweep(make: Callable[[pathlib.Path], Scenario], folder: pathlib.Path, exhaustive: bool) -> Counts:
    """Every fault of every operation, or one in `_STRIDE` of them."""
    # A file object that is given up is no news here: Python closes it, as at the end of a process.
    warnings.simplefilter("ignore", ResourceWarning)
    sys.unraisablehook = lambda _: None
    logging.disable()
    signal.signal(signal.SIGALRM, _hangs)
    plain, names = _once(make, folder, None)
    counts = Counts(make(folder).name, len(names), violations=plain)
    every = [
        fault
        for number, name in enumerate(names, start=1)
        for fault in faults(number, make(folder).other_errors.get(name, ERRORS))
    ]
    for fault in every if exhaustive else every[::_STRIDE]:
        found, _ = _once(make, folder, fault)
        counts.faults += 1
        counts.violations += [f"{fault} ({names[fault.number - 1]}): {text}" for text in found]
    return counts


def _once(
    make: Callable[[pathlib.Path], Scenario], folder: pathlib.Path, fault: Fault | None
) -> tuple[list[str], list[str]]:
    """The violations of one case, and the operations that were made."""
    root = folder / "case"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    scenario = make(root)
    scenario.prepare()
    injector = Injector(fault)
    descriptors = _descriptors()
    outcome = _killed(scenario, injector) if fault and fault.kind == KILL else _outcome(scenario, injector)
    _close_all_but(descriptors)
    found = list(scenario.violations(outcome))
    try:
        found += scenario.afterwards()
    except BaseException as error:
        found.append(f"the next time fails: {error!r}")
    return [f"{text} [{outcome.claim[:300]}]" for text in found], injector.names


def _outcome(scenario: Scenario, injector: Injector) -> Outcome:
    signal.alarm(_HANGS_SECONDS)
    try:
        with injector.active():
            return Outcome(scenario.act(injector))
    except BaseException as error:
        return Outcome(error=error.with_traceback(None))
    finally:
        signal.alarm(0)


def _hangs(*_: Any) -> None:
    raise AssertionError(f"it hangs: nothing came of it within {_HANGS_SECONDS} s")


def _killed(scenario: Scenario, injector: Injector) -> Outcome:
    child = os.fork()
    if not child:
        try:
            signal.alarm(_HANGS_SECONDS)
            with injector.active():
                scenario.act(injector)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if status != signal.SIGKILL:
        raise AssertionError(f"the child was to be killed, its status is {status}")
    return Outcome(killed=True)


def _close_all_but(descriptors: set[str]) -> None:
    """A process that ends closes what an error left open; so it goes on holding no lock."""
    gc.collect(0)
    for descriptor in _descriptors() - descriptors:
        os.close(int(descriptor))


def _descriptors() -> set[str]:
    # But for the one with which they are listed.
    return {name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}
