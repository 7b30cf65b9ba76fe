"""`bitsum rollout`: put a new version in the place of the stable one, if it loads, is blessed, and answers as well.

The candidate is loaded beside the stable version and gets the label `canary`; both are asked the same questions,
recorded ones and fresh ones whose answers are known; then the label `stable` moves, and `previous` stays behind for
`bitsum rollback`. Whatever goes wrong, the server gets the config back that it had, and stable never stops answering.
For any TensorFlow Serving.
"""

import argparse
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from components import progress, results
from components.errors import BitsumError, ConfigError, Refusal, reason
from components.printable import say
from serving.commands import connection_flags

if TYPE_CHECKING:
    from serving.rollout.deployment import Deployment
    from serving.rollout.provenance import Provenance

CONFIG_FILE = pathlib.Path("var/serving/models.config")
_KEEP = 5
_LOAD_SECONDS = 60.0
_QUESTIONS = 300
_LATENCY_RATIO = 2.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a rollout would do; docs/json.md says what each field is."""

    config_file: pathlib.Path
    labels: dict[str, int]
    stable: int
    candidate: int
    candidate_loads: bool
    candidate_run: str
    task: str
    unblessed: str
    ignored_files: list[str]
    load_timeout: float
    questions: int
    requests: pathlib.Path | None
    labels_after: dict[str, int]
    config_after: str
    keep: int
    deleted_versions: list[int]


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Which server and which config file: also those of `bitsum rollback`."""
    parser.add_argument(
        "--server", default=connection_flags.SERVER, metavar="HOST:PORT", help="model server (default %(default)s)"
    )
    parser.add_argument(
        "--model_name", default=connection_flags.MODEL_NAME, help="name of the model (default %(default)s)"
    )
    parser.add_argument(
        "--config_file",
        type=pathlib.Path,
        default=CONFIG_FILE,
        metavar="FILE",
        help="the model config file that the server was started with, which is kept in step (default %(default)s)",
    )
    connection_flags.add_tls_arguments(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum rollout`."""
    parser.add_argument(
        "version", type=int, nargs="?", metavar="VERSION", help="the candidate (default: the newest version on disk)"
    )
    add_config_arguments(parser)
    parser.add_argument("--plan", action="store_true", help="show what would happen, and change nothing")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON, with --plan")
    parser.add_argument(
        "--force", action="store_true", help="also a version that no pipeline blessed; damaged files are never served"
    )
    parser.add_argument(
        "--requests",
        type=pathlib.Path,
        metavar="FOLDER",
        help="recorded requests (bitsum serve --request_log_dir) to ask both versions",
    )
    parser.add_argument(
        "--count",
        type=int,
        default=_QUESTIONS,
        metavar="N",
        help="fresh questions with known answers (default %(default)s)",
    )
    parser.add_argument(
        "--max_latency_ratio",
        type=float,
        default=_LATENCY_RATIO,
        metavar="X",
        help="the canary's median and 90th percentile of latency may be X times those of stable (default %(default)s)",
    )
    parser.add_argument(
        "--load_timeout",
        type=float,
        default=_LOAD_SECONDS,
        metavar="SECONDS",
        help="time limit for loading the candidate (default %(default)s)",
    )
    parser.add_argument(
        "--keep",
        type=int,
        default=_KEEP,
        metavar="N",
        help="keep the last N versions on disk, and all that carry a label; 0 keeps everything (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the fresh questions (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Roll out; the exit code.

    Raises:
        Refusal: the candidate stays back; the text says why.
        BitsumError: the server or the config file cannot be used.
    """
    if args.count < 1 or args.keep < 0 or not args.max_latency_ratio > 0 or not args.load_timeout > 0:
        raise ConfigError(
            "--count must be at least 1, --keep not negative, --max_latency_ratio and --load_timeout more than 0"
        )
    if args.json and not args.plan:
        raise ConfigError("--json prints a plan: give --plan with it")
    from serving.rollout.deployment import STABLE

    with telling(args, "roll out") as deployment:
        stable = deployment.labels()[STABLE]
        candidate = _candidate(deployment, args.version)
        if args.plan:
            results.show(_plan(deployment, args, stable, candidate), _plan_lines, args.json)
            return 0
        with deployment.locked():
            # Again, since another rollout may just have ended.
            stable = deployment.labels()[STABLE]
            if candidate == stable:
                _mend(deployment, stable)
            else:
                _roll_out(deployment, args, stable, candidate)
            _retain(deployment, args.keep)
    return 0


@contextlib.contextmanager
def telling(args: argparse.Namespace, doing: str) -> Iterator["Deployment"]:
    """The deployment that the arguments name; how it stands is told where somebody ends the work, also by `bitsum
    rollback`.

    Raises:
        BitsumError: a file cannot be used, or no connection can be made; the text names it.
        KeyboardInterrupt: the text says which version is stable.
    """
    from serving.rollout.deployment import Deployment

    try:
        with Deployment(
            args.server, args.model_name, args.config_file, connection_flags.credentials(args)
        ) as deployment:
            try:
                yield deployment
            except KeyboardInterrupt as interrupt:
                raise type(interrupt)("; ".join(filter(None, (str(interrupt), deployment.state())))) from interrupt
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BitsumError(f"cannot {doing} by {args.config_file}: {reason(error)}") from error


def _mend(deployment: "Deployment", stable: int) -> None:
    """The version is stable by the file; see that the server agrees."""
    from serving.rollout.deployment import STABLE

    if deployment.served(STABLE) == stable:
        say(f"version {stable} of {deployment.model_name} is stable already: nothing to do")
        return
    deployment.apply(deployment.config())
    say(f"version {stable} is {STABLE} again at {deployment.target}, as {deployment.config_file} has it")


def _candidate(deployment: "Deployment", asked: int | None) -> int:
    from components.savedmodel import version_folder

    base_path = deployment.base_path()
    on_disk = version_folder.versions(base_path)
    if asked is not None and asked not in on_disk:
        raise BitsumError(
            f"there is no version {asked} in {base_path}: it holds {', '.join(map(str, on_disk)) or 'none'}"
        )
    if not on_disk:
        raise BitsumError(f"there is no version in {base_path}: bitsum run pushes one")
    return asked if asked is not None else on_disk[-1]


def _plan(deployment: "Deployment", args: argparse.Namespace, stable: int, candidate: int) -> Plan:
    """Raises: Refusal, where the candidate would be refused before it is loaded."""
    from serving.rollout import provenance, retention
    from serving.rollout.deployment import PREVIOUS, STABLE, changed

    labels, config = deployment.labels(), deployment.config()
    found = provenance.of(deployment.base_path() / str(candidate))
    loads = candidate != stable
    if loads:
        _check(found, candidate, args.force)
    after = {STABLE: candidate, PREVIOUS: stable} if loads else labels
    return Plan(
        config_file=args.config_file,
        labels=labels,
        stable=stable,
        candidate=candidate,
        candidate_loads=loads,
        candidate_run=found.run,
        task=found.task.name,
        unblessed=found.unblessed,
        ignored_files=list(found.ignored),
        load_timeout=args.load_timeout,
        questions=args.count,
        requests=args.requests,
        labels_after=after,
        config_after=str(changed(config, args.model_name, after) if loads else config),
        keep=args.keep,
        deleted_versions=retention.superfluous(deployment.base_path(), args.keep, after.values()),
    )


def _plan_lines(plan: Plan) -> list[str]:
    from serving.rollout.deployment import CANARY, PREVIOUS, STABLE

    labels = ", ".join(f"{label} is version {version}" for label, version in sorted(plan.labels.items()))
    lines = [f"{plan.config_file}: {labels}"]
    if plan.candidate_loads:
        requests = f" and those in {plan.requests}" if plan.requests else ""
        lines += [
            *_candidate_lines(plan.candidate, plan.candidate_run, plan.task, plan.unblessed, plan.ignored_files),
            f"1. load version {plan.candidate} beside {plan.stable}, at most {plan.load_timeout:g} s",
            f"2. label it {CANARY}; ask both {plan.questions} fresh questions{requests}",
            f"3. move {STABLE} to {plan.candidate}, {PREVIOUS} to {plan.stable}, if every answer is right and none too slow; "
            "the config then is",
            *[f"   {line}" for line in plan.config_after.splitlines()],
        ]
    else:
        lines.append(f"version {plan.stable} is stable already: nothing would be rolled out")
    gone = ", ".join(map(str, plan.deleted_versions)) or "none"
    return [*lines, f"versions that would be deleted (--keep {plan.keep}): {gone}"]


def _check(found: "Provenance", candidate: int, force: bool) -> None:
    """Raises: Refusal, for a version with foreign files or others than were pushed, or that no pipeline blessed."""
    if found.damage:
        raise Refusal(
            "rollout",
            f"version {candidate} is damaged and cannot be served: {found.damage[0]} ({len(found.damage)} in all); push it again",
        )
    if found.unblessed and not force:
        raise Refusal(
            "rollout",
            f"version {candidate} was blessed by no pipeline: {found.unblessed}; --force rolls it out all the same",
        )


def _candidate_lines(candidate: int, run: str, task: str, unblessed: str, ignored: Sequence[str]) -> list[str]:
    state = f"files as pushed, blessed by run {run}, {task} proven for any length"
    if unblessed:
        state = f"not blessed ({unblessed}), rolled out by --force"
    return [
        f"version {candidate}: {state}",
        *([f"version {candidate}: {', '.join(ignored)} ignored"] if ignored else []),
    ]


def _roll_out(deployment: "Deployment", args: argparse.Namespace, stable: int, candidate: int) -> None:
    from serving.rollout import canary, provenance
    from serving.rollout.deployment import CANARY, PREVIOUS, STABLE, changed

    found = provenance.of(deployment.base_path() / str(candidate))
    _check(found, candidate, args.force)
    _tell(*_candidate_lines(candidate, found.run, found.task.name, found.unblessed, found.ignored))
    answering = deployment.served(STABLE)
    if answering != stable:
        _tell(
            f"note: {args.server} answers for {STABLE} with version {answering}, {args.config_file} has {stable}: the file counts"
        )
    before, labels = deployment.config(), deployment.labels()
    if labels.pop(CANARY, None) is not None:
        # A rollout that was killed left it.
        before = changed(before, args.model_name, labels)
    with _said(stable), deployment.changing(before):
        deployment.apply(changed(before, args.model_name, {STABLE: stable}, loaded=(candidate,)))
        _tell(f"version {candidate}: loaded after {deployment.wait_loaded(candidate, args.load_timeout):.1f} s")
        deployment.apply(changed(before, args.model_name, {STABLE: stable, CANARY: candidate}))
        compared = canary.compare(deployment.client_options(), found.task, args.count, args.seed, args.requests)
        _tell(*compared.lines())
        compared.check_answered()
        complaint = compared.complaint(args.max_latency_ratio)
        if complaint:
            raise Refusal("rollout", f"version {candidate} stays back: {complaint}")
        deployment.apply(changed(before, args.model_name, {STABLE: candidate, PREVIOUS: stable}))
    say(f"version {candidate} is {STABLE}, {stable} is {PREVIOUS}: bitsum rollback goes back to it")


@contextlib.contextmanager
def _said(stable: int) -> Iterator[None]:
    """Says so where the candidate is refused."""
    try:
        yield
    except Refusal:
        say(f"version {stable} stays stable")
        raise


def _retain(deployment: "Deployment", keep: int) -> None:
    """Delete what is superfluous, once the server serves it no more. A failure is a note: the rollout itself is
    done."""
    from components import atomic
    from serving.rollout import retention

    try:
        base_path, in_use = deployment.base_path(), set(deployment.labels().values())
        atomic.sweep(base_path)
        for version in retention.superfluous(base_path, keep, in_use):
            retention.delete(base_path, version)
            _tell(f"deleted: version {version} (--keep {keep})")
    except (BitsumError, OSError) as error:
        progress.note(f"note: old versions are not deleted: {error}; the next rollout tries again")


def _tell(*lines: str) -> None:
    """Say how far the rollout is, unless progress is hidden."""
    if progress.shown():
        say(*lines)
