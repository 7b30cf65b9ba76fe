"""A run under Airflow compared with the same run by `bitsum run`, node by node; and a backfill over several days.

python -m benchmarks.scheduled_runs [--days N] [--set SECTION.KNOB=VALUE ...]

The first table has wall times: of a node in the process of `bitsum run`, of its task under Airflow, which starts a
process for it, and their ratio. The second has the runs of the backfill. Exit code 1 if a run failed or started before
the previous one ended, or if the number of runs is not the number of days.
"""

import argparse
import datetime
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from benchmarks import airflow_service
from benchmarks.kills import SMALL
from pipeline import config as configuration
from pipeline.records import metadata_store
from pipeline.records.lineage_graph import LineageGraph

DAYS = 5
_FIRST_DAY = datetime.date(2026, 3, 1)
_SECONDS = 3600.0


def main(arguments: list[str]) -> int:
    """Measure and print; 1 if a run failed or two ran at once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=int, default=DAYS, help="days of the backfill (default %(default)s)")
    parser.add_argument(
        "--set", metavar="SECTION.KNOB=VALUE", action="append", default=[], help="set one knob; may be repeated"
    )
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bitsum-scheduled-") as folder:
        return _compare(pathlib.Path(folder), args.set) | _backfill(
            pathlib.Path(folder) / "backfill", args.days, args.set
        )


def _compare(folder: pathlib.Path, knobs: list[str]) -> int:
    span = f"data.span={_FIRST_DAY}"
    began = time.monotonic()
    words = [word for knob in (*knobs, span, f"pipeline.root={folder / 'alone'}") for word in ("--set", knob)]
    done = subprocess.run([sys.executable, "-m", "pipeline", "run", *words], capture_output=True, text=True)
    whole = time.monotonic() - began
    if done.returncode:
        print(f"bitsum run failed: {done.stderr.strip()}")
        return 1
    alone = _seconds_of_nodes(folder / "alone", re.match(r"bitsum run (\S+) in ", done.stdout)[1])
    with airflow_service.started(folder / "scheduled", knobs) as airflow:
        began = time.monotonic()
        airflow.trigger("one", f"{_FIRST_DAY}T00:00:00Z", {})
        state = airflow.wait("one", _SECONDS)
        scheduled = time.monotonic() - began
        tasks = {name: end - start for name, (start, end) in airflow.worked("one").items()}
        parse = airflow.parse_seconds()
    print(f"{'node':22} {'bitsum run, s':>14} {'Airflow, s':>11} {'ratio':>7}")
    for name, seconds in tasks.items():
        ratio = f"{seconds / alone[name]:7.1f}" if alone.get(name, 0) > 0.1 else f"{'-':>7}"
        print(f"{name:22} {alone.get(name, 0):14.1f} {seconds:11.1f} {ratio}")
    print(f"{'whole, with serving':22} {whole:14.1f} {scheduled:11.1f} {scheduled / whole:7.1f}")
    print(f"the DAG was parsed in {parse:.2f} s; the run ended as {state}", flush=True)
    return int(state != "success")


def _backfill(root: pathlib.Path, days: int, knobs: list[str]) -> int:
    last = _FIRST_DAY + datetime.timedelta(days=days - 1)
    with airflow_service.started(
        root, [*SMALL, *knobs, "schedule.cron=@daily", f"schedule.start={datetime.date.today()}"]
    ) as airflow:
        airflow.command(
            "backfill",
            "create",
            "--dag-id",
            airflow_service.DAG,
            "--from-date",
            str(_FIRST_DAY),
            "--to-date",
            str(last),
        )
        runs = [run for run in airflow.runs() if run.startswith("backfill")]
        through, wrong = 0.0, int(len(runs) != days)
        print(f"{'run':48} {'state':8} {'start, s':>9} {'end, s':>9}")
        began = time.time()
        for run in runs:
            state = airflow.wait(run, _SECONDS)
            worked = airflow.worked(run).values()
            first, end = min(start for start, _ in worked), max(end for _, end in worked)
            print(f"{run:48} {state:8} {first - began:9.0f} {end - began:9.0f}", flush=True)
            wrong |= int(state != "success" or first < through)
            through = end
    words = [word for knob in (*knobs, f"pipeline.root={root}") for word in ("--set", knob)]
    print(subprocess.run([sys.executable, "-m", "pipeline", "history", *words], capture_output=True, text=True).stdout)
    return wrong


def _seconds_of_nodes(root: pathlib.Path, run: str) -> dict[str, float]:
    """{node: seconds} of a run, from the metadata store."""
    with metadata_store.existing(configuration.load(None, [f"pipeline.root={root}"])) as store:
        lineage = LineageGraph(store)
    return {
        lineage.node_of[id]: (
            lineage.executions[id].last_update_time_since_epoch - lineage.executions[id].create_time_since_epoch
        )
        / 1000
        for id in lineage.executions_of(run)
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
