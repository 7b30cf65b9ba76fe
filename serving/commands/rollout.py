"""`bitsum rollout`: promote the newest version if it is blessed, loads and passes the canary checks.

The candidate is loaded beside the stable version and gets the label `canary`. Both versions answer the same questions:
recorded requests, and generated ones with known answers. Then the label `stable` moves to the candidate, and `previous`
marks the old version for `bitsum rollback`. After any failure the server gets its old config back; stable never stops
answering. Works with any TensorFlow Serving.
"""

import argparse
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from components import outputs, progress, results
from components.errors import BitsumError, ConfigError, Refusal, reason
from components.printable import say
from serving import defaults
from serving.commands import connection_flags
from serving.labels import CANARY, PREVIOUS, STABLE

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
    """The steps of a rollout; docs/json.md describes each field."""

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
    """The server and the config file, for `bitsum rollout` and `bitsum rollback`."""
    connection_flags.add_server_argument(parser)
    parser.add_argument("--model_name", default=defaults.MODEL_NAME, help="name of the model (default %(default)s)")
    parser.add_argument(
        "--config_file",
        type=outputs.path,
        default=CONFIG_FILE,
        metavar="FILE",
        help="the server's model config file, which is updated too (default %(default)s)",
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
        "--force",
        action="store_true",
        help="promote even a version that no pipeline blessed; damaged files are never served",
    )
    parser.add_argument(
        "--requests",
        type=connection_flags.path,
        metavar="FOLDER",
        help="recorded requests (bitsum serve --request_log_dir) to replay on both versions",
    )
    parser.add_argument(
        "--count",
        type=int,
        default=_QUESTIONS,
        metavar="N",
        help="generated questions with known answers (default %(default)s)",
    )
    parser.add_argument(
        "--max_latency_ratio",
        type=float,
        default=_LATENCY_RATIO,
        metavar="X",
        help="limit of the canary's median and 90th percentile latency, relative to stable (default %(default)s)",
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
        help="keep the last N versions on disk and all labelled ones; 0 keeps everything (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated questions (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Roll out and return the exit code.

    Raises:
        Refusal: the candidate is not promoted; the text says why.
        BitsumError: the server, the config file or the recorded requests cannot be used.
    """
    if args.count < 1 or args.keep < 0 or not args.max_latency_ratio > 0 or not args.load_timeout > 0:
        raise ConfigError(
            "--count must be at least 1, --keep not negative, --max_latency_ratio and --load_timeout more than 0"
        )
    if args.json and not args.plan:
        raise ConfigError("--json prints a plan: add --plan")
    if args.requests:
        from serving.rollout import canary

        canary.check_requests(args.requests)
    with deployment_of(args, "roll out") as deployment:
        stable = deployment.labels()[STABLE]
        candidate = _candidate(deployment, args.version)
        if args.plan:
            results.show(_plan(deployment, args, stable, candidate), _plan_lines, args.json)
            return 0
        with deployment.locked():
            # Read again: another rollout may just have ended.
            stable = deployment.labels()[STABLE]
            if candidate == stable:
                _resync(deployment, stable)
            else:
                _roll_out(deployment, args, stable, candidate)
            _retain(deployment, args.keep)
    return 0


@contextlib.contextmanager
def deployment_of(args: argparse.Namespace, doing: str) -> Iterator["Deployment"]:
    """The deployment that the arguments name, also for `bitsum rollback`; an interrupt reports its state.

    Raises:
        BitsumError: a file cannot be used, or the connection fails; the text names it.
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
        raise BitsumError(f"cannot {doing} with {args.config_file}: {reason(error)}") from error


def _resync(deployment: "Deployment", stable: int) -> None:
    """Make sure that the server agrees with the file, which has `stable` as its stable version."""
    if deployment.served(STABLE) == stable:
        say(f"version {stable} of {deployment.model_name} is already stable: nothing to do")
        return
    deployment.apply(deployment.config())
    say(f"version {stable} is {STABLE} again at {deployment.target}, as in {deployment.config_file}")


def _candidate(deployment: "Deployment", asked: int | None) -> int:
    from components.savedmodel import version_folder

    base_path = deployment.base_path()
    on_disk = version_folder.versions(base_path)
    if asked is not None and asked not in on_disk:
        raise BitsumError(
            f"version {asked} is not in {base_path}, which holds {', '.join(map(str, on_disk)) or 'none'}"
        )
    if not on_disk:
        raise BitsumError(f"no version in {base_path}: bitsum run pushes one")
    return asked if asked is not None else on_disk[-1]


def _plan(deployment: "Deployment", args: argparse.Namespace, stable: int, candidate: int) -> Plan:
    """Raises: Refusal, if the candidate would be refused before it is loaded."""
    from serving.rollout import provenance, retention
    from serving.rollout.deployment import with_labels

    labels, config = deployment.labels(), deployment.config()
    origin = provenance.of(deployment.base_path() / str(candidate))
    loads = candidate != stable
    if loads:
        check_candidate(origin, candidate, args.force)
    after = {STABLE: candidate, PREVIOUS: stable} if loads else labels
    return Plan(
        config_file=args.config_file,
        labels=labels,
        stable=stable,
        candidate=candidate,
        candidate_loads=loads,
        candidate_run=origin.run,
        task=origin.task.name,
        unblessed=origin.unblessed or "",
        ignored_files=list(origin.ignored),
        load_timeout=args.load_timeout,
        questions=args.count,
        requests=args.requests,
        labels_after=after,
        config_after=str(with_labels(config, args.model_name, after) if loads else config),
        keep=args.keep,
        deleted_versions=retention.expired(deployment.base_path(), args.keep, after.values()),
    )


def _plan_lines(plan: Plan) -> list[str]:
    labels = ", ".join(f"{label} is version {version}" for label, version in sorted(plan.labels.items()))
    lines = [f"{plan.config_file}: {labels}"]
    if plan.candidate_loads:
        requests = f" and the requests in {plan.requests}" if plan.requests else ""
        lines += [
            *candidate_lines(plan.candidate, plan.candidate_run, plan.task, plan.unblessed, plan.ignored_files),
            f"1. load version {plan.candidate} beside {plan.stable}, at most {plan.load_timeout:g} s",
            f"2. label it {CANARY}; send both {plan.questions} generated questions{requests}",
            f"3. if every answer is right and none too slow, move {STABLE} to {plan.candidate} and {PREVIOUS} to "
            f"{plan.stable}; the config is then",
            *[f"   {line}" for line in plan.config_after.splitlines()],
        ]
    else:
        lines.append(f"version {plan.stable} is already stable: nothing would be rolled out")
    deleted = ", ".join(map(str, plan.deleted_versions)) or "none"
    return [*lines, f"versions that would be deleted (--keep {plan.keep}): {deleted}"]


def check_candidate(origin: "Provenance", candidate: int, force: bool) -> None:
    """Raises: Refusal, if the version has foreign or changed files, or no pipeline blessed it."""
    if origin.damage:
        raise Refusal(
            "rollout",
            f"version {candidate} is damaged and cannot be served: {origin.damage[0]} ({len(origin.damage)} in all); "
            "push it again",
        )
    if origin.unblessed and not force:
        raise Refusal(
            "rollout", f"no pipeline blessed version {candidate}: {origin.unblessed}; --force rolls it out anyway"
        )


def candidate_lines(candidate: int, run: str, task: str, unblessed: str | None, ignored: Sequence[str]) -> list[str]:
    """The lines on the candidate: its provenance and ignored files."""
    state = f"files as pushed, blessed by run {run}, {task} proven for any length"
    if unblessed:
        state = f"not blessed ({unblessed}), rolled out because of --force"
    return [
        f"version {candidate}: {state}",
        *([f"version {candidate}: {', '.join(ignored)} ignored"] if ignored else []),
    ]


def _roll_out(deployment: "Deployment", args: argparse.Namespace, stable: int, candidate: int) -> None:
    from serving.rollout import canary, provenance
    from serving.rollout.deployment import with_labels

    origin = provenance.of(deployment.base_path() / str(candidate))
    check_candidate(origin, candidate, args.force)
    _report(*candidate_lines(candidate, origin.run, origin.task.name, origin.unblessed, origin.ignored))
    answering = deployment.served(STABLE)
    if answering != stable:
        _report(
            f"note: {args.server} serves version {answering} as {STABLE}, {args.config_file} has {stable}: "
            "the rollout follows the file"
        )
    before, labels = deployment.config(), deployment.labels()
    if labels.pop(CANARY, None) is not None:
        # Left by a rollout that was killed.
        before = with_labels(before, args.model_name, labels)
    with _announcing_stable(stable), deployment.restoring(before):
        deployment.apply(with_labels(before, args.model_name, {STABLE: stable}, loaded=(candidate,)))
        _report(f"version {candidate}: loaded after {deployment.wait_loaded(candidate, args.load_timeout):.1f} s")
        deployment.apply(with_labels(before, args.model_name, {STABLE: stable, CANARY: candidate}))
        comparison = canary.compare(deployment.client_options(), origin.task, args.count, args.seed, args.requests)
        _report(*comparison.lines())
        comparison.check_answered()
        complaint = comparison.complaint(args.max_latency_ratio)
        if complaint:
            raise Refusal("rollout", f"version {candidate} is not promoted: {complaint}")
        deployment.apply(with_labels(before, args.model_name, {STABLE: candidate, PREVIOUS: stable}))
    say(f"version {candidate} is {STABLE}, {stable} is {PREVIOUS}: bitsum rollback restores it")


@contextlib.contextmanager
def _announcing_stable(stable: int) -> Iterator[None]:
    """Print which version stays stable if the candidate is refused."""
    try:
        yield
    except Refusal:
        say(f"version {stable} stays stable")
        raise


def _retain(deployment: "Deployment", keep: int) -> None:
    """Delete expired versions that the server no longer serves. A failure is only a note: the rollout is done."""
    from components import atomic
    from serving.rollout import retention

    try:
        base_path, in_use = deployment.base_path(), set(deployment.labels().values())
        atomic.sweep(base_path)
        for version in retention.expired(base_path, keep, in_use):
            retention.delete(base_path, version)
            _report(f"deleted: version {version} (--keep {keep})")
    except (BitsumError, OSError) as error:
        progress.note(f"note: old versions were not deleted: {error}; the next rollout tries again")


def _report(*lines: str) -> None:
    """Print progress of the rollout, unless hidden."""
    if progress.shown():
        say(*lines)
