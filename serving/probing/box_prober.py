"""Checks that a running server computes the certified cell, with states from the boxes that sums may never reach.

States drawn from each box of a certificate, corners and interior, are sent to `step` with every symbol. Each returned
state must lie in the checker's image of the state sent and in a box with the right label, and its logit must have that
label's sign. By the theorem this holds on every runtime that it covers; a server that violates it is not covered.
"""

import collections
import math
import random
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from components import signatures
from components.proof import checker
from components.proof.certificate import Box, Certificate
from components.proof.weights import Weights
from components.task.transducer import Symbol, Transducer
from serving import tensors
from serving.client import AdderClient
from serving.errors import ServingError
from serving.probing.report import BoxReport

# States per box besides its two extreme corners: half of them other corners, half from the interior.
POINTS = 16
MAX_LISTED = 5

State = tuple[float, ...]


class Question(NamedTuple):
    """A state from a box, and a symbol."""

    box: int
    state: State
    symbol: Symbol


def probe_boxes(
    client: AdderClient,
    weights: Weights,
    certificate: Certificate,
    task: Transducer,
    points: int = POINTS,
    seed: int = 0,
) -> BoxReport:
    """Send states from the boxes; `errors` of the report counts the unanswered questions by gRPC code."""
    generator = random.Random(seed)
    cell = checker.Cell.of(weights)
    wrong: list[str] = []
    errors: collections.Counter[str] = collections.Counter()
    asked = 0
    for symbol in task.inputs:
        questions = [
            Question(index, state, symbol)
            for index, box in enumerate(certificate.boxes)
            for state in states(box, points, generator)
        ]
        asked += len(questions)
        try:
            answers = _answers(client, questions)
        except ServingError as error:
            errors[error.code or type(error).__name__] += len(questions)
            continue
        for question, (logit, state) in zip(questions, answers, strict=True):
            problem = _problem(cell, certificate, task, question, logit, state)
            if problem:
                wrong.append(f"box {question.box}, symbol {''.join(map(str, symbol))}: {problem}")
    return BoxReport(asked, asked - len(wrong) - errors.total(), wrong[:MAX_LISTED], dict(errors))


def states(box: Box, points: int, generator: random.Random) -> Iterator[State]:
    """float32 states in `box`: its extreme corners, `points` // 2 other corners, and as many from the interior."""
    sides = [(_float32_from(lower), -_float32_from(-upper)) for lower, upper in zip(box.lower, box.upper, strict=True)]
    yield tuple(low for low, _ in sides)
    yield tuple(high for _, high in sides)
    for _ in range(points // 2):
        yield tuple(generator.choice(side) for side in sides)
    for _ in range(points - points // 2):
        yield tuple(min(max(_rounded(generator.uniform(low, high)), low), high) for low, high in sides)


def _answers(client: AdderClient, questions: Sequence[Question]) -> list[tuple[float, State]]:
    """(logit, state) after one step for each question, all in one call."""
    units = len(questions[0].state)
    states_sent = [value for question in questions for value in question.state]
    bits = [bytes(48 + question.symbol[place] for question in questions) for place in (0, 1)]
    inputs = {
        signatures.A: tensors.bit_digits_tensor(bits[0], (len(questions), 1)),
        signatures.B: tensors.bit_digits_tensor(bits[1], (len(questions), 1)),
        signatures.STATE: tensors.float_tensor(states_sent, (len(questions), units)),
    }
    outputs = client.predict(signatures.STEP, inputs, [signatures.LOGITS, signatures.STATE]).outputs
    shapes = outputs[signatures.LOGITS].shape, outputs[signatures.STATE].shape
    if shapes != ((len(questions), 1), (len(questions), units)):
        return [(math.nan, (math.nan,) * units)] * len(questions)
    logits, states = list(outputs[signatures.LOGITS].values), list(outputs[signatures.STATE].values)
    return [(logits[row], tuple(states[row * units : (row + 1) * units])) for row in range(len(questions))]


def _problem(
    cell: checker.Cell, certificate: Certificate, task: Transducer, question: Question, logit: float, state: State
) -> str | None:
    """Why the answer is wrong; None if it is right. The comparisons make NaN a problem."""
    label = task.label(certificate.boxes[question.box].state, question.symbol)
    image = checker.image(cell, [(value, value) for value in question.state], question.symbol)
    if math.isnan(logit) or (logit > 0) != bool(label[1]):
        return f"logit {logit} has the wrong sign for output {label[1]}"
    if not image.logit[0] <= logit <= image.logit[1]:
        return f"logit {logit} lies outside of [{image.logit[0]}, {image.logit[1]}]"
    for unit, (value, (lower, upper)) in enumerate(zip(state, image.hidden, strict=True)):
        if not lower <= value <= upper:
            return f"unit {unit} of the state is {value}, outside of [{lower}, {upper}]"
    targets = [box for box in certificate.boxes if (box.state, box.output) == label]
    if not any(
        all(low <= value <= high for low, value, high in zip(box.lower, state, box.upper, strict=True))
        for box in targets
    ):
        return f"the state lies outside every box with label {label}"
    return None


def _rounded(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def _float32_from(value: float) -> float:
    """The smallest float32 not below `value`, for |value| <= 1."""
    # Adding zero turns -0.0, whose bits as an integer have no neighbour, into 0.0.
    nearest = _rounded(value) + 0.0
    if nearest >= value:
        return nearest
    [bits] = struct.unpack("<i", struct.pack("<f", nearest))
    # Neighbouring floats are neighbouring integers, in the same order for positive and the reverse for negative ones.
    return struct.unpack("<f", struct.pack("<i", bits + 1 if nearest >= 0 else bits - 1))[0]
