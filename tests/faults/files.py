"""Other writers under every fault: deletions, garbage, request logs, and files that appear whole."""

import contextlib
import io
import json
import os
import pathlib
import time

from components import atomic, outputs
from components.data import quarantine
from components.errors import BitsumError
from components.formats import protos
from serving import model_config
from serving.rollout import retention
from serving.server import options, request_log
from tests.faults.sweep import Scenario


def is_ours(error, *paths):
    """Whether it is an interrupt, or an error of ours that names one of the paths."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, BitsumError) and any(str(path) in str(error) for path in paths)
    )


class Retention(Scenario):
    """A version is deleted."""

    name = "retention"

    def prepare(self):
        for version in (1, 2):
            for name in ("saved_model.pb", "variables/variables.index"):
                (self.root / str(version) / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / str(version) / name).write_bytes(b"model")

    def act(self, injector):
        atomic.sweep(self.root)
        retention.delete(self.root, 1)
        return True

    def violations(self, outcome):
        there = (self.root / "1").exists()
        if there and len(list((self.root / "1").rglob("*"))) != 3:
            yield "half-deleted and visible"
        if outcome.value and there:
            yield "claims that it is deleted"
        if isinstance(outcome.error, BitsumError) and not there:
            yield "claims that it is not deleted"
        if outcome.error and not is_ours(outcome.error, self.root):
            yield "an error that is not ours"

    def afterwards(self):
        atomic.sweep(self.root)
        if (self.root / "1").exists():
            retention.delete(self.root, 1)
        if os.listdir(self.root) != ["2"]:
            yield f"left behind: {os.listdir(self.root)}"


class RequestLog(Scenario):
    """Three requests are logged, to two files, and the log is closed."""

    name = "request log"

    def prepare(self):
        request = protos.load(predict="tensorflow_serving.apis.predict_pb2").predict.PredictRequest()
        request.model_spec.name = "bitsum"
        self.request = request.SerializeToString()
        self.log = None

    def act(self, injector):
        self.log = request_log.RequestLog(self.root / "log", 1.0, limits=request_log.Limits(file_records=2))
        try:
            for _ in range(3):
                self.log.offer(self.request, b"")
        finally:
            try:
                self.log.close()
            except KeyboardInterrupt:
                # Python 3.10 takes a thread for ended once a join of it was interrupted.
                end = time.monotonic() + 5
                while sum(_counts(self.log).values()) < 3 and time.monotonic() < end:
                    time.sleep(0.001)
                raise
        return _counts(self.log)

    def violations(self, outcome):
        if self.log and not outcome.killed:
            on_disk = len(list(request_log.read(self.root / "log")))
            counts = _counts(self.log)
            if counts.get("logged", 0) != on_disk:
                yield f"{counts.get('logged', 0)} are counted, {on_disk} are on the disk"
            if outcome.value and sum(counts.values()) != 3:
                yield f"of 3 requests are counted {counts}"
        if outcome.error and not is_ours(outcome.error, self.root):
            yield "an error that is not ours"

    def afterwards(self):
        log = request_log.RequestLog(self.root / "log", 1.0)
        log.offer(self.request, b"")
        log.close()
        if _counts(log) != {"logged": 1}:
            yield "the next log does not log"
        left = [path.name for path in (self.root / "log").rglob("*") if path.is_file() and path.suffix != ".tfrecords"]
        if left:
            yield f"left behind: {left}"


def _counts(log):
    """How many requests were logged, and how many were not for each reason."""
    return {labels.get("reason", "logged"): count for family in log.families() for labels, count in family.samples}


class _Replaced(Scenario):
    """A file is replaced; it holds the old content or the new one, and never less."""

    file = "file"
    error = BitsumError

    def prepare(self):
        self.path = self.root / "folder" / self.file
        self.path.parent.mkdir()
        self.write("old")
        self.contents = {"old": self.path.read_bytes()}
        self.write("new")
        self.contents["new"] = self.path.read_bytes()
        self.write("old")

    def write(self, text):
        raise NotImplementedError

    def act(self, injector):
        self.write("new")
        return True

    def violations(self, outcome):
        found = self.path.read_bytes()
        if found not in self.contents.values():
            yield "half-written"
        is_new = found == self.contents["new"]
        if outcome.value and not is_new:
            yield "claims that it is written"
        if (
            outcome.error
            and is_new
            and not (isinstance(outcome.error, KeyboardInterrupt) and "is written" in str(outcome.error))
        ):
            yield "fails, and the file is written"
        if outcome.error and not is_ours(outcome.error, self.path.parent):
            yield "an error that is not ours"

    def afterwards(self):
        self.write("new")
        if self.path.read_bytes() != self.contents["new"]:
            yield "the next time writes something else"
        if os.listdir(self.path.parent) != [self.path.name]:
            yield f"left behind: {os.listdir(self.path.parent)}"


class ReadyFile(_Replaced):
    """The ready file of a server."""

    name = "ready file"

    def write(self, text):
        options.write_ready_file(self.path, options.Ready("127.0.0.1", 1, 2, text, "bitsum", 3))


class ModelConfig(_Replaced):
    """The model config file."""

    name = "config file"

    def write(self, text):
        model_config.write(self.path, model_config.one_model(text, "/served"))


class Output(_Replaced):
    """The output of a long sum."""

    name = "output"

    def write(self, text):
        with outputs.opened(str(self.path)) as file:
            for _ in range(3):
                file.write(text.encode() * 10_000)


class Compiled(_Replaced):
    """A compiled pipeline."""

    name = "compile"

    def write(self, text):
        from pipeline.commands import compile

        with outputs.opened(str(self.path)) as file:
            file.write(compile.as_yaml([{"pipelineInfo": {"name": text}}]))


class Quarantine(Scenario):
    """A span is set aside."""

    name = "quarantine"

    def act(self, injector):
        place = self.root / "quarantine" / "span-7"
        quarantine.set_aside(str(place), 7, "gate", ["a reason"], "source", {"offenders.csv": b"1,2,4"})
        return place

    def violations(self, outcome):
        report = self.root / "quarantine" / "span-7" / quarantine.REPORT_FILE
        if report.exists() and (
            json.loads(report.read_text())["span"],
            (report.parent / "offenders.csv").read_bytes(),
        ) != (7, b"1,2,4"):
            yield "the report is there without the records"
        if outcome.value and not report.exists():
            yield "claims a report that is not there"
        if isinstance(outcome.error, BitsumError) and report.exists():
            yield "claims that the report is not there"
        if outcome.error and not is_ours(outcome.error, self.root):
            yield "an error that is not ours"

    def afterwards(self):
        place = self.act(None)
        if sorted(os.listdir(place)) != ["offenders.csv", quarantine.REPORT_FILE]:
            yield f"left behind: {os.listdir(place)}"


class Folder(Scenario):
    """A folder appears, as that of an exported model does."""

    name = "folder"

    def act(self, injector):
        with atomic.folder(self.root / "place" / "model") as partial:
            (partial / "below").mkdir()
            (partial / "below" / "file").write_text("content")
        return True

    def prepare(self):
        (self.root / "place").mkdir()

    def violations(self, outcome):
        model = self.root / "place" / "model"
        if model.exists() and (model / "below" / "file").read_text() != "content":
            yield "half-visible"
        if outcome.error and model.exists() and "is written" not in str(outcome.error):
            yield "fails, and the folder is there"
        if outcome.value and not model.exists():
            yield "claims that it is there"

    def afterwards(self):
        self.act(None) if not (self.root / "place" / "model").exists() else atomic.sweep(self.root / "place")
        if os.listdir(self.root / "place") != ["model"]:
            yield f"left behind: {os.listdir(self.root / 'place')}"


class LockFile(Scenario):
    """The lock of a rollout is held and let go."""

    name = "lock file"

    def act(self, injector):
        with atomic.lock(self.root / ".lock"):
            return True

    def violations(self, outcome):
        if outcome.error and not isinstance(outcome.error, (OSError, KeyboardInterrupt)):
            yield "an error of another kind"

    def afterwards(self):
        with atomic.lock(self.root / ".lock"):
            if os.listdir(self.root) != [".lock"]:
                yield f"left behind: {os.listdir(self.root)}"
        if os.listdir(self.root):
            yield "the lock file is left behind"


class Garbage(Scenario):
    """`bitsum gc --delete` on a store with a run that is no longer needed. The store's writes are operations, too."""

    name = "gc"
    other_errors = {"store": ("INTERNAL",)}

    def prepare(self):
        from tests.faults import metadata

        metadata.copy_to(self.root / "var")
        self.artifacts = self.root / "var" / "artifacts"
        self.before = metadata.whole(self.artifacts)

    def act(self, injector):
        from tests.faults import metadata

        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), metadata.watched(injector):
            code = metadata.collect(self.root / "var")
        return code, err.getvalue(), out.getvalue()

    def violations(self, outcome):
        from tests.faults import metadata

        now, states = metadata.whole(self.artifacts), metadata.states(self.root / "var")
        for uri, state in states.items():
            path = pathlib.Path(uri)
            if (
                state == "LIVE"
                and now.get(path.relative_to(self.artifacts)) != self.before[path.relative_to(self.artifacts)]
            ):
                yield f"a live artifact is not whole: {uri}"
            if state == "DELETED" and path.exists():
                yield f"a deleted artifact is still there: {uri}"
        if outcome.killed:
            return
        if outcome.error:
            yield "an error that is not ours"
            return
        code, err, out = outcome.value
        if code not in (0, 1, 130, 143) or (code and not (err.startswith("bitsum: ") and err.count("\n") == 1)):
            yield f"exit code {code}, {err!r}"
        for line in out.splitlines():
            if " MB  /" in line and pathlib.Path(line.split("  ")[-2]).exists():
                yield f"claims removed: {line}"
        if code == 0 and metadata.whole(self.artifacts).keys() != metadata.needed():
            yield "claims success, and not all is removed"

    def afterwards(self):
        from tests.faults import metadata
        from tests.faults.injector import Injector

        code, err, _ = self.act(Injector())
        if code:
            yield f"the next time says {code}: {err}"
        if metadata.whole(self.artifacts).keys() != metadata.needed():
            yield f"left: {sorted(map(str, metadata.whole(self.artifacts).keys() - metadata.needed()))}"
