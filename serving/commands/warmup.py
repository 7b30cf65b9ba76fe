"""`bitsum warmup`: push a version again with requests from the request log, which servers replay while they load it.

A server that loads a version runs its warmup requests first, so that no user waits for a first run of such a request.
The requests cannot be added to the version itself: it would differ from its manifest, and no server would load it
again. The new version has the same model and the same proof, which is checked first.
"""

import argparse
import collections
import functools
import itertools
import pathlib
import shutil
import sys
import tempfile
from typing import Any

from components.errors import BitsumError, ConfigError, Refusal, reason
from components.printable import say
from serving.commands import connection_flags

_GATE = "warmup"
# In the origin of the manifest: the number of warmup requests that come from the log.
_LOGGED = "logged_requests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum warmup`."""
    parser.add_argument(
        "requests",
        type=connection_flags.path,
        metavar="REQUESTS",
        help="folder of the model in --request_log_dir of bitsum serve, or one of its files",
    )
    parser.add_argument(
        "--model_base_path",
        type=connection_flags.path,
        required=True,
        metavar="FOLDER",
        help="folder of versions, to which the new one is pushed",
    )
    parser.add_argument("--version", type=int, metavar="N", help="version to push again (default: the newest)")
    parser.add_argument(
        "--count",
        type=int,
        default=100,
        metavar="N",
        help="logged requests, the latest; a server accepts 1000 warmup requests in all (default %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Push the version and return the exit code.

    Raises:
        Refusal: the version is damaged, its proof does not hold, or it would replace a later one.
        ConfigError: too many requests.
        BitsumError: there are no requests, the version does not load with them, or a file or folder cannot be read or
            written.
    """
    from components.savedmodel import model_files, version_folder

    most = model_files.MAX_WARMUP_REQUESTS
    if not 1 <= args.count <= most:
        raise ConfigError(f"--count = {args.count}: must be from 1 to {most}")
    from serving.server import request_log

    base = args.model_base_path
    version = max(version_folder.versions(base), default=None) if args.version is None else args.version
    if version is None or not (base / str(version)).is_dir():
        raise BitsumError(f"{base} has no version{'s' if version is None else f' {version}'}: nothing was pushed")
    folder = base / str(version)
    manifest = _verified(folder)
    note = functools.partial(say, stream=sys.stderr)
    requests = collections.deque(request_log.read(args.requests, note), maxlen=args.count)
    if not requests:
        raise BitsumError(f"{args.requests} has no requests: nothing was pushed")
    # A failure to remove the copy is no failure of the push.
    with tempfile.TemporaryDirectory(prefix="bitsum-warmup-", ignore_cleanup_errors=True) as beside:
        model = pathlib.Path(beside) / "model"
        try:
            signed = _copy(folder, model)
            total = _add(model, requests, _logged(manifest))
        except OSError as error:
            raise BitsumError(f"cannot copy {folder}: {reason(error)}; nothing was pushed") from error
        done = _push(model, base, manifest, version, len(requests))
    if signed:
        say(
            f"note: the signature of version {version} does not cover the requests: sign {done.path}", stream=sys.stderr
        )
    say(f"pushed {done.path}: version {version} with {len(requests)} logged requests, {total} warmup requests in all")
    return 0


def _logged(manifest: dict[str, Any]) -> int:
    """The number of the version's last warmup requests that an earlier call took from a log."""
    logged = manifest.get("origin", {}).get(_LOGGED)
    return logged if isinstance(logged, int) and logged > 0 else 0


def _verified(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest of the version in `folder`. Raises: Refusal, its files or its proof are not as pushed."""
    from components.savedmodel import version_folder
    from serving.rollout import provenance

    manifest = version_folder.manifest(folder)
    found = provenance.of(folder)
    if found.damage:
        raise Refusal(_GATE, f"{found.damage[0]} ({len(found.damage)} in all); nothing was pushed")
    if not manifest or (found.unblessed and manifest.get("origin", {}).get("certificate")):
        raise Refusal(_GATE, f"version {folder.name}: {found.unblessed}; nothing was pushed")
    return manifest


def _copy(folder: pathlib.Path, model: pathlib.Path) -> bool:
    """Copy the files of the version but its manifest and signature. Returns whether it has a signature."""
    from components.savedmodel import model_files, version_folder

    model.mkdir()
    own = {str(version_folder.MANIFEST), str(model_files.SIGNATURE)}
    entries = [entry for entry in model_files.entries(folder) if not entry.is_litter]
    for entry in entries:
        if entry.kind == model_files.FOLDER:
            (model / entry.name).mkdir()
        elif entry.name not in own:
            shutil.copy(entry.path, model / entry.name)
    return any(entry.name == str(model_files.SIGNATURE) for entry in entries)


def _add(model: pathlib.Path, requests: "collections.deque[Any]", logged: int) -> int:
    """Add the requests to those of the model, in place of its last `logged` ones. Returns their number together.

    Raises:
        ConfigError: too many.
    """
    from components.formats import request_logs, tfrecords
    from components.savedmodel import model_files

    file = model / model_files.WARMUP_REQUESTS
    # The last ones come from an earlier call: a daily one would fill the file within days.
    before = list(tfrecords.read(file))[: -logged or None] if file.exists() else []
    total, most = len(before) + len(requests), model_files.MAX_WARMUP_REQUESTS
    if total > most:
        raise ConfigError(
            f"{len(before)} warmup requests of the version and {len(requests)} logged ones are more than {most}: "
            + (f"give --count={most - len(before)}" if len(before) < most else "name an earlier version (--version)")
        )
    log = request_logs.prediction_log()
    new = (log(predict_log={"request": request}).SerializeToString(deterministic=True) for request in requests)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"".join(map(tfrecords.framed, itertools.chain(before, new))))
    return total


def _push(model: pathlib.Path, base: pathlib.Path, manifest: dict[str, Any], version: int, count: int) -> Any:
    """Push `model` if it loads and answers all requests, as in a server."""
    from components.savedmodel import push_order, version_folder
    from serving.server import app
    from serving.status import StatusError

    with app.quiet_tensorflow(None):
        from components.savedmodel import fingerprint
        from serving.server import grpc_server

        try:
            grpc_server.load(model).close()
        except StatusError as error:
            # No verdict on the model, which loads without them.
            what = f"version {version} does not load with these requests, which may be those of another model"
            raise BitsumError(f"{what}: {' '.join(error.described().split())}; nothing was pushed") from error
        identity, weights = fingerprint.fingerprint(model), fingerprint.weights_sha256(model)
    origin = manifest.get("origin", {})
    push_order.check(base, origin.get(push_order.SPAN, 0), identity, weights, origin.get(push_order.SPAN_DATE, ""))
    origin = {**origin, "copy_of": version, _LOGGED: count}
    return version_folder.push(model, base, identity, origin, even_if_same=True)
