"""python -m tests.faults NAME FOLDER [exhaustive]: one sweep in a process of its own, whose counts are printed."""

import importlib
import pathlib
import sys

from tests.faults.sweep import sweep

SWEEPS = {
    "push": "push.Push",
    "push-again": "push.PushAgain",
    "rollout": "rollouts.Rollout",
    "rollback": "rollouts.Rollback",
    "gc": "files.Garbage",
    "retention": "files.Retention",
    "request-log": "files.RequestLog",
    "ready-file": "files.ReadyFile",
    "config-file": "files.ModelConfig",
    "output": "files.Output",
    "compile": "files.Compiled",
    "quarantine": "files.Quarantine",
    "folder": "files.Folder",
    "lock-file": "files.LockFile",
}


def main(name: str, folder: str, exhaustive: str = "") -> int:
    module, scenario = SWEEPS[name].split(".")
    counts = sweep(
        getattr(importlib.import_module(f"tests.faults.{module}"), scenario), pathlib.Path(folder), bool(exhaustive)
    )
    print(counts)
    print(*counts.violations[:200], sep="\n")
    return bool(counts.violations)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
