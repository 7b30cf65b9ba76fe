"""Models for subtraction on a real server: refusal of other tasks, and a rollout from the first format to the next."""

import random
import shutil

import pytest

from components.model import export
from components.savedmodel import export_format, version_folder, warmup
from components.task.transducer import SUBTRACTION
from serving import protos, tensors
from serving.client import AdderClient, InvalidRequest
from serving.probing.questions import Question
from serving.server.request_log import RequestLog
from tests.serving.conftest import bitsum, serving
from tests.support import hand_made

PAIRS = [(13, 29), (29, 13), (2**5000, 1), *((2**64 - n, n) for n in range(1, 50))]
NAME = "subtract"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with two pushed versions of a model that subtracts; the first has the first export format."""
    folder = tmp_path_factory.mktemp("subtraction")
    for number in (export_format.FIRST, export_format.LATEST):
        model = folder / f"format-{number}"
        export.save(hand_made.subtractor(), str(model), task=SUBTRACTION, form=number)
        warmup.write(model, [Question(13, 29, 5).example()], NAME)
        version_folder.push(model, folder / NAME, str(number), {"task": SUBTRACTION.name, "run": "by hand"})
        shutil.rmtree(model)
    return folder / NAME


@pytest.fixture(scope="module")
def served(base, tmp_path_factory):
    """(server, its model config file, the older version, the newer one); the older is stable."""
    config = tmp_path_factory.mktemp("server") / "models.config"
    first, second = version_folder.versions(base)
    hidden = base.parent / str(second)
    (base / str(second)).rename(hidden)
    with serving(base, "--server=embedded", f"--model_config_file={config}", f"--model_name={NAME}") as server:
        hidden.rename(base / str(second))
        yield server, config, first, second


@pytest.fixture
def recorded(tmp_path):
    """A log of ten requests for each signature name of the older version."""
    log, draw = RequestLog(tmp_path / "requests", rate=1.0), random.Random(3)
    for _ in range(10):
        for signature in ("add_bits", "add_packed"):
            request = protos.load().predict.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = NAME, signature
            for name in ("a", "b"):
                number = draw.getrandbits(64)
                packed = tensors.string_tensor([number.to_bytes(8, "little")])
                request.inputs[name].CopyFrom(
                    packed if signature == "add_packed" else tensors.bits_tensor([number], 64)
                )
            if signature == "add_packed":
                request.inputs["state"].CopyFrom(tensors.filled_tensor(0.0, (1, 3)))
            log.offer(request.SerializeToString(), b"")
    log.close()
    return tmp_path / "requests"


def test_a_model_that_adds_does_not_subtract(server):
    for command, numbers in (("subtract", (13, 29)), ("compare", (hex(2**5000), 1))):
        code, out, err = bitsum(command, *numbers, "--server", server.target)
        assert (code, out) == (1, "") and "Traceback" not in err
        assert (
            f"does not {command}: it has no signature {command}_bits but add_bits; it "
            "computes addition: call it with bitsum add"
        ) in err


def test_rollout_from_the_first_format_to_the_next_and_back(served, recorded):
    server, config, first, second = served
    options = "--server", server.target, "--model_name", NAME
    rollout = *options, "--config_file", config, "--force", "--count", 40, "--max_latency_ratio", 1000

    with AdderClient(server.target, NAME, signature="add_bits") as client:
        assert client.apply(SUBTRACTION, PAIRS) == [a - b for a, b in PAIRS]
        assert client.metadata().version == first
    with (
        AdderClient(server.target, NAME) as client,
        pytest.raises(
            InvalidRequest, match="if its export format is 1 and it does subtract, give --signature add_bits"
        ),
    ):
        client.subtract(13, 29)
    assert bitsum("subtract", 13, 29, *options, "--signature", "add_bits")[:2] == (0, "-16\n")
    assert bitsum("probe", server.target, "--task", "subtraction", "--count", 8, "--model_name", NAME)[0] == 0

    code, out, err = bitsum("rollout", second, *rollout, "--requests", recorded, timeout=120)
    assert (code, err) == (0, ""), (out, err)
    assert "recorded requests: 20 sent to both, 0 answered differently, 0 skipped" in out, out
    assert "20 of them use a signature that the canary has under another name" in out, out

    with AdderClient(server.target, NAME) as client:
        assert client.apply(SUBTRACTION, PAIRS) == [a - b for a, b in PAIRS]
    code, out, err = bitsum("add", 13, 29, *options)
    assert (code, out, err.count("\n")) == (1, "", 1) and "no signature add_bits but subtract_bits" in err
    assert bitsum("probe", server.target, "--task", "subtraction", "--count", 8, "--model_name", NAME)[0] == 0

    assert bitsum("rollback", *rollout[:6])[0] == 0
    assert bitsum("subtract", 13, 29, *options, "--signature", "add_bits")[:2] == (0, "-16\n")
