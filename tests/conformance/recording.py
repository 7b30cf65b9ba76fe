"""The recorded behaviour of a real TensorFlow Serving 2.16.1: sections of probes, each with its request and answer.

`recorded_behaviour.json` was recorded with the model of `make_model.py`. A probe has either a request to replay or a
description in words.
"""

import ast
import base64
import dataclasses
import functools
import json
import pathlib
from typing import Any

from google.protobuf import text_format

from tests.conformance import wire

FOLDER = pathlib.Path(__file__).parent
MAKE_MODEL = FOLDER / "make_model.py"
# The folder of the models during the recording.
RECORDED_MODELS = "/models/"
# Requests of zero bytes.
_EMPTY_REQUESTS = ("status_no_spec", "mi_empty", "reload_no_config")
# The method of a request by the prefix of its id; the default is Predict.
_METHODS = {
    "meta_": wire.METADATA,
    "half_meta": wire.METADATA,
    "status_": wire.STATUS,
    "classify_": wire.CLASSIFY,
    "regress_": wire.REGRESS,
    "mi_": wire.MULTI_INFERENCE,
}


@dataclasses.dataclass(frozen=True)
class Probe:
    """A probe: its description in words, and its whole `record` in the file."""

    section: str
    id: str
    words: str
    record: dict[str, Any]

    @property
    def method(self) -> str:
        """The gRPC method of the request."""
        if self.record.get("request", "").startswith("config") or self.id == "reload_no_config":
            return wire.RELOAD
        return next((method for start, method in _METHODS.items() if self.id.startswith(start)), wire.PREDICT)

    @property
    def has_request(self) -> bool:
        return "request" in self.record or self.id in _EMPTY_REQUESTS

    @property
    def request(self) -> bytes:
        """The serialized request, with the recorded base paths; reloads are recorded as text only."""
        if self.record.get("request_b64"):
            return base64.b64decode(self.record["request_b64"])
        if self.id in _EMPTY_REQUESTS:
            return b""
        return text_format.Parse(self.record["request"], wire.request_type(self.method)()).SerializeToString()

    @property
    def answer(self) -> wire.Answer:
        """The recorded code, text and response."""
        result = self.record["result"]
        response = base64.b64decode(result["response_b64"]) if result.get("response_b64") else b""
        if not response and str(result.get("response", "")).startswith("b'"):
            response = ast.literal_eval(result["response"])
        return wire.Answer(result["code"], result.get("message", ""), response)

    @property
    def states_after(self) -> dict[str, list]:
        """The states of the versions by model after a reload has settled; empty if not recorded."""
        return self.record.get("states_after_2s") or self.record.get("states_after_1s") or {}

    @property
    def settled_at_once(self) -> bool:
        """Whether the states right after the answer were final, and so do not depend on timing."""
        return bool(self.states_after) and self.record["states_right_after"] == self.states_after


@functools.cache
def load() -> dict[str, dict[str, Probe]]:
    """The probes by section and id, in the recorded order."""
    sections = json.loads((FOLDER / "recorded_behaviour.json").read_text())["sections"]
    return {
        section: {
            probe["id"]: Probe(section, probe["id"], probe["request_in_words"], probe) for probe in content["probes"]
        }
        for section, content in sections.items()
    }
