"""The push of a version, under every fault."""

import os

from components.errors import BitsumError
from components.savedmodel import version_folder
from tests.faults.sweep import Scenario


class Push(Scenario):
    """A second model is pushed into a folder that has one version."""

    name = "push"

    def prepare(self):
        self.model, self.base = self.root / "model", self.root / "served" / "bitsum"
        (self.model / "variables").mkdir(parents=True)
        (self.model / "saved_model.pb").write_bytes(b"graph" * 9000)
        (self.model / "variables" / "variables.index").write_bytes(b"weights")
        self.first = version_folder.push(self.model, self.base, "identity-1", {}).version

    def act(self, injector):
        return version_folder.push(self.model, self.base, "identity-2", {"run": "r"})

    def violations(self, outcome):
        made = [version for version in version_folder.versions(self.base) if version != self.first]
        for version in made:
            yield from (f"half-visible: {problem}" for problem in version_folder.problems(self.base / str(version)))
            if (self.base / str(version)).stat().st_mode & 0o777 != 0o755:
                yield "visible with another mode"
        if len(made) > 1:
            yield f"one push made {made}"
        if outcome.value and [outcome.value.version] != made:
            yield f"claims a version that is not there: {made}"
        if outcome.error and made and "is pushed" not in str(outcome.error):
            yield f"fails, and version {made[0]} is visible"
        if isinstance(outcome.error, BitsumError) and str(self.root) not in str(outcome.error):
            yield "names no path"
        if outcome.error and not isinstance(outcome.error, (BitsumError, KeyboardInterrupt)):
            yield "an error that is not ours"
        self.made = made

    def afterwards(self):
        again = version_folder.push(self.model, self.base, "identity-2", {"run": "r"})
        if again.is_new == bool(self.made) or (self.made and again.version != self.made[0]):
            yield f"pushed twice: {self.made}, then {again}"
        left = [name for name in os.listdir(self.base) if not name.isdecimal() and name != ".lock"]
        if left:
            yield f"left behind: {left}"
        third = version_folder.push(self.model, self.base, "identity-3", {})
        if third.version <= again.version:
            yield "a version that is no higher than the one before"


class PushAgain(Push):
    """The model that is the newest version already is pushed again."""

    name = "push again"

    def act(self, injector):
        return version_folder.push(self.model, self.base, "identity-1", {"run": "r"})

    def violations(self, outcome):
        if version_folder.versions(self.base) != [self.first]:
            yield f"pushed twice: {version_folder.versions(self.base)}"
        if outcome.value and (outcome.value.version, outcome.value.is_new) != (self.first, False):
            yield "claims another version"
        if outcome.error and not (isinstance(outcome.error, KeyboardInterrupt) or _is_ours(outcome.error, self.root)):
            yield "an error that is not ours, or names no path"

    def afterwards(self):
        self.made = []
        yield from super().afterwards()


def _is_ours(error, root):
    return isinstance(error, BitsumError) and str(root) in str(error)
