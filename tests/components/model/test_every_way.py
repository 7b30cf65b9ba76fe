"""Every way of running gives the same bits: each signature, in chunks and step by step, any batch, any cut of a number.

The truth is what Python's integers say.
"""

import itertools
import random

import numpy as np
import pytest
import tensorflow as tf

from components.model import export
from components.model.carry_select import CarrySelect
from components.task.addition import from_bits, to_bits
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION
from tests.support import hand_made
from tests.support.cells import cell_of
from tests.support.examples import example_of


def total(a, b, length):
    return a + b


def difference(a, b, length):
    return (a - b) % 2 ** (length + 1)


def verdicts(a, b, length):
    masks = [2 ** (place + 1) - 1 for place in range(length + 1)]
    return sum(int((a & mask) > (b & mask)) << place for place, mask in enumerate(masks))


MODELS = {
    "certified, in chunks": (cell_of, CarrySelect(ADDITION, 20, 8), total),
    "certified, in longer chunks": (cell_of, CarrySelect(ADDITION, 100, 40), total),
    "certified, step by step": (cell_of, None, total),
    "addition": (hand_made.adder, CarrySelect(ADDITION, 20, 16), total),
    "subtraction": (hand_made.subtractor, CarrySelect(SUBTRACTION, 20, 8), difference),
    "comparison": (hand_made.comparer, CarrySelect(COMPARISON, 20, 8), verdicts),
}
LENGTHS = (1, 7, 8, 9, 15, 16, 17, 20, 21, 23, 24, 25, 31, 32, 33, 63, 64, 65, 100, 101, 1000, 1024)


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    """(run(signature, inputs), units, truth(a, b, length))."""
    make, parallel, truth = MODELS[request.param]
    cell, folder = make(), str(tmp_path_factory.mktemp("model") / "model")
    export.save(cell, folder, parallel)
    loaded = tf.saved_model.load(folder)
    return lambda name, **inputs: loaded.signatures[name](**inputs), cell.units, truth


def pairs(length):
    """Random and structured pairs of numbers: carries through all places, carries that die, equal and alternating
    ones."""
    dice, most = random.Random(length), 2**length - 1
    alternating, low = most // 3, most >> length // 2
    structured = [
        (0, 0),
        (most, 1),
        (1, most),
        (most, most),
        (most ^ low, low + 1),
        (alternating, most ^ alternating),
        (0, most),
    ]
    structured += [(alternating, alternating), (most - 1, 1), (most - 1, 2), (low, low ^ most)]
    return [(a & most, b & most) for a, b in structured] + [
        (dice.getrandbits(length), dice.getrandbits(length)) for _ in range(5)
    ]


def bits(numbers, length):
    return tf.constant([to_bits(number, length) for number in numbers], tf.int64)


def strings(numbers, size):
    return [number.to_bytes(size, "little") for number in numbers]


@pytest.mark.parametrize("length", LENGTHS)
def test_bits_in_batches_of_every_size(model, length):
    run, _, truth = model
    asked = pairs(length)
    expected = [truth(a, b, length) for a, b in asked]
    for rows in (slice(None), slice(2, 3), slice(1, 4), np.arange(70) % len(asked)):
        batch = [asked[row] for row in rows] if isinstance(rows, np.ndarray) else asked[rows]
        a, b = zip(*batch, strict=True)
        answers = run("add_bits", a=bits(a, length), b=bits(b, length))["sum"].numpy()
        wanted = [expected[row] for row in rows] if isinstance(rows, np.ndarray) else expected[rows]
        assert [from_bits(row) for row in answers] == wanted


def test_examples_of_all_lengths_in_one_batch(model):
    run, _, truth = model
    asked = [(a, b, length) for length in LENGTHS[:-2] for a, b in pairs(length)[-4:]]
    out = run("serving_default", examples=tf.constant([example_of(*each) for each in asked]))
    assert [from_bits(row) for row in out["sum"].numpy()] == [truth(*each) for each in asked]
    assert out["length"].numpy().tolist() == [length for _, _, length in asked]


@pytest.mark.parametrize("length", [16, 64, 1024])
def test_a_number_cut_anywhere(model, length):
    """By `step` into bits and by `add_packed` into bytes, the state of one handed to the other and back."""
    run, units, truth = model
    dice, asked, size = random.Random(length), pairs(length), length // 8 + 1
    a, b = zip(*asked, strict=True)
    bits_a, bits_b, bytes_a, bytes_b = bits(a, 8 * size), bits(b, 8 * size), strings(a, size), strings(b, size)
    for pieces in ([size], [1] * min(size, 9) + [size - 9] * (size > 9), sorted_pieces(dice, size)):
        state, done, written = tf.zeros([len(asked), units]), 0, [0] * len(asked)
        for number, piece in enumerate(pieces):
            here = slice(done, done + piece)
            if number % 3 == 2:
                out = run(
                    "step",
                    a=bits_a[:, 8 * done : 8 * (done + piece)],
                    b=bits_b[:, 8 * done : 8 * (done + piece)],
                    state=state,
                )
                found = [from_bits(row) for row in out["sum"].numpy()]
            else:
                cut = {
                    name: tf.constant([row[here] for row in rows]) for name, rows in (("a", bytes_a), ("b", bytes_b))
                }
                out = run("add_packed", **cut, state=state)
                found = [int.from_bytes(row, "little") for row in out["sum"].numpy()]
            written = [before | more << 8 * done for before, more in zip(written, found, strict=True)]
            state, done = out["state"], done + piece
        assert [number % 2 ** (length + 1) for number in written] == [truth(x, y, length) for x, y in asked]


def sorted_pieces(dice, size):
    """Sizes that make up `size`, at random."""
    ends = sorted({dice.randint(1, size) for _ in range(5)} | {size})
    return [end - begin for begin, end in itertools.pairwise([0, *ends])]
