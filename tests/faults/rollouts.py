"""Rollout and rollback by the command line, under every fault of files and of calls to the server."""

import contextlib
import io
import os

import grpc

from components.savedmodel import version_folder
from pipeline import cli
from serving import model_config
from tests.faults import model_server
from tests.faults.sweep import Scenario


class Rollout(Scenario):
    """The newest of three versions takes the place of the oldest; then the one between them is deleted."""

    name = "rollout"
    other_errors = {"call": model_server.LOST}
    labels = {"stable": 0}
    command = ("rollout", "--force", "--count=1", "--keep=1", "--max_latency_ratio=1000000")

    def prepare(self):
        self.base, self.config_file = self.root / "served" / "bitsum", self.root / "config" / "models.config"
        (self.root / "model").mkdir()
        (self.root / "model" / "saved_model.pb").write_bytes(b"graph")
        self.versions = [
            version_folder.push(self.root / "model", self.base, str(number), {}).version for number in range(3)
        ]
        self.config_file.parent.mkdir()
        self.server = model_server.ModelServer(self.root / "server.json")
        labels = {label: self.versions[number] for label, number in self.labels.items()}
        config = model_config.one_model("bitsum", str(self.base), labels.values(), labels)
        model_config.write(self.config_file, config)
        self.server.serve(config)
        self.before, self.after = labels["stable"], self.versions[2]

    def act(self, injector):
        options = ("--server=memory:1", f"--config_file={self.config_file}")
        out, err = io.StringIO(), io.StringIO()
        make, grpc.insecure_channel = grpc.insecure_channel, self.server.channel(injector)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.main([self.command[0], *self.command[1:], *options])
        finally:
            grpc.insecure_channel = make
        return code, err.getvalue(), out.getvalue()

    def violations(self, outcome):
        served, written = self.server.serves(), model_server.in_file(self.config_file)
        stable = served["labels"].get("stable"), written["labels"].get("stable")
        if not {*stable} <= {self.before, self.after}:
            yield f"stable is {stable}"
        if outcome.killed:
            return
        if outcome.error:
            yield "an error that is not ours"
            return
        code, err, _ = outcome.value
        if code and not (err.startswith("bitsum: ") and err.count("\n") == 1):
            yield "a failure without its one line"
        if served != written and not ("could not be restored" in err and self._tells(err, *stable)):
            yield f"server {served} and file {written} differ"
        if code == 0 and served != self.done():
            yield f"claims success, and the server has {served}"
        if code and stable[1] == self.after and f"version {self.after} is stable" not in err:
            yield "claims failure although the new version is stable"
        if code not in (0, 1, 130, 143):
            yield f"exit code {code}"

    def done(self):
        return {
            "versions": sorted({self.before, self.after}),
            "labels": {"stable": self.after, "previous": self.before},
        }

    def _tells(self, err, served, written):
        if "cannot be read" in err:
            return f"serves version {served} as stable" in err
        if served == written:
            return f"version {served} is stable" in err or f"has version {written} as stable" in err
        return (
            f"has version {written} as stable" in err
            and "synchronizes both" in err
            and (f"serves version {served} as stable" in err or "does not say" in err)
        )

    def afterwards(self):
        self.command = ("rollout", str(self.after), *Rollout.command[1:])
        code, err, _ = self.act(_none())
        served = self.server.serves()
        if code or err:
            yield f"the next rollout says {code}: {err}"
        if not served == model_server.in_file(self.config_file) == self.done():
            yield f"after the next rollout server {served}, file {model_server.in_file(self.config_file)}"
        if set(version_folder.versions(self.base)) != {self.versions[0], self.versions[2]}:
            yield f"versions {version_folder.versions(self.base)} are left"
        left = [*os.listdir(self.config_file.parent), *[name for name in os.listdir(self.base) if not name.isdecimal()]]
        if sorted(left) != [".lock", "models.config"]:
            yield f"left behind: {left}"


class Rollback(Rollout):
    """The stable version gives way to the one before it."""

    name = "rollback"
    labels = {"stable": 0, "previous": 2}
    command = ("rollback",)


def _none():
    from tests.faults.injector import Injector

    return Injector()
