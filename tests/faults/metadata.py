"""A small pipeline folder with a real ML Metadata store: what an old run put out, a failed one left, and the last one
needs."""

import contextlib
import functools
import os
import pathlib
import shutil

from ml_metadata import errors, metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import cli
from tests.support.metadata_stores import FAILED, Store

_WRITES = ("put_artifacts", "get_artifacts_by_id", "get_artifacts", "get_executions")
_NEEDED = "BitstringExampleGen/examples/3"


@functools.cache
def _template(root):
    """Made once; the store holds absolute paths, so it is copied back to the same place."""
    store = Store(root)
    store.execution("old", "BitstringExampleGen", {}, {"examples": {"span": 0}})
    store.execution("failed", "Trainer", {}, {}, state=FAILED)
    store.execution("new", "BitstringExampleGen", {}, {"examples": {"span": 0}})
    orphan = root / "artifacts" / "Trainer" / "model" / "2"
    orphan.mkdir(parents=True)
    (orphan / "content").write_text("half a model")
    template = root.parent.parent / "template"
    shutil.rmtree(template, ignore_errors=True)
    shutil.copytree(root, template)
    return template


def copy_to(root):
    """Fill the folder `root`."""
    template = _template(root)
    if not root.exists():
        shutil.copytree(template, root)


def collect(root):
    """`bitsum gc --delete`; the exit code."""
    return cli.main(["gc", "--delete", "--keep=1", "--set", f"pipeline.root={root}", "--set", "spans.window=1"])


@contextlib.contextmanager
def watched(injector):
    """Calls to the store are operations."""
    before = {name: getattr(metadata_store.MetadataStore, name) for name in _WRITES}

    def wrapped(call):
        return lambda *args, **named: injector.operation(
            "store", lambda: call(*args, **named), lambda kind: errors.InternalError("the database fails")
        )

    try:
        for name, call in before.items():
            setattr(metadata_store.MetadataStore, name, wrapped(call))
        yield
    finally:
        for name, call in before.items():
            setattr(metadata_store.MetadataStore, name, call)


def whole(artifacts):
    """{folder of an artifact: the names in it}, as they are below `artifacts`."""
    return {path.relative_to(artifacts): sorted(os.listdir(path)) for path in artifacts.glob("*/*/*")}


def needed():
    """The folder that is to stay."""
    return {pathlib.Path(_NEEDED)}


def states(root):
    """{uri: state} by the store."""
    where = mlmd.ConnectionConfig()
    where.sqlite.filename_uri = str(root / "metadata.sqlite")
    where.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE
    store = metadata_store.MetadataStore(where)
    return {artifact.uri: mlmd.Artifact.State.Name(artifact.state) for artifact in store.get_artifacts()}
