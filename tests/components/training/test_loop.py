"""Training: the batches, the loss, the loop, and that a seed decides everything."""

import dataclasses
import gzip
import itertools
import json
import logging
import subprocess
import sys
import types
import zlib

import numpy as np
import pytest
import tensorflow as tf

from components import progress
from components.data import dataset
from components.errors import BitsumError
from components.model import export
from components.model.carry_select import CarrySelect
from components.proof import certificate, checker, finder
from components.proof.weights import Weights
from components.savedmodel import fingerprint as model_identity
from components.savedmodel import graph_identity, push_order
from components.settings import ProofSettings, Train
from components.task.addition import to_bits
from components.task.transducer import ADDITION, TASKS
from components.training import loop, trainer
from components.training.box_loss import BoxLoss
from components.training.certification import Attempts
from tests.support import certified, examples

SMALL = Train(units=8, steps=60, min_steps=1, batch_size=32, report_every=20, learning_rate=0.01, state_noise=0.2)
# Every data loss is low enough for a share to grow, if there were one.
PLAIN = ProofSettings(train=False, ready_loss=100.0)


def example(a, b, length):
    return examples.example(a=to_bits(a, length), b=to_bits(b, length), sum=to_bits(a + b, length + 1), length=[length])


def write(path, records):
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in records:
            writer.write(record)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All pairs of up to 3 bits in two training files, and some of 4 bits in the eval split."""
    root = tmp_path_factory.mktemp("data")
    pairs = [example(a, b, t) for t in (1, 2, 3) for a, b in itertools.product(range(2**t), repeat=2)]
    write(root / "Split-train" / "data_tfrecord-00000-of-00002.gz", pairs[::2])
    write(root / "Split-train" / "data_tfrecord-00001-of-00002.gz", pairs[1::2])
    write(
        root / "Split-eval" / "data_tfrecord-00000-of-00001.gz",
        [example(a, b, 4) for a in (0, 5, 10, 15) for b in (1, 9, 15)],
    )
    return root


def files(data, split):
    return [str(data / f"Split-{split}" / "*")]


def run_fn(data, out, settings, base_model=None, **config):
    fn_args = types.SimpleNamespace(
        custom_config={"train": dataclasses.asdict(settings), "code": "hash", **config},
        train_files=files(data, "train"),
        eval_files=files(data, "eval"),
        base_model=base_model,
        serving_model_dir=str(out / "Format-Serving"),
        model_run_dir=str(out / "logs"),
    )
    trainer.run_fn(fn_args)
    return out


@pytest.fixture
def reports(told):
    """A function: the numbers of the reports of `components.progress` so far."""
    return lambda: [record.numbers for record in told if hasattr(record, "numbers")]


@pytest.fixture
def told():
    """The reports and lines of `components.progress`, as records."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger(progress.LOGGER)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_batch_pads_shorter_numbers_and_masks_the_padding():
    batch = dataset.to_batch(tf.constant([example(1, 1, 1), example(5, 3, 3)]))
    assert batch.a.numpy().tolist() == [[1, 0, 0, 0], [1, 0, 1, 0]]
    assert batch.b.numpy().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert batch.sum.numpy().tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
    assert batch.mask.numpy().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_batches_go_through_all_records_in_an_order_that_is_the_seed_s(data):
    def order(seed, batches):
        taken = dataset.batches(files(data, "train"), 12, seed).take(batches)
        return [
            tuple(row)
            for batch in taken
            for row in np.concatenate([batch.a, batch.b, batch.mask], axis=1).astype(int).tolist()
        ]

    # 4 + 16 + 64 pairs make 7 batches of 12.
    first = dataset.batches(files(data, "train"), 12, 1).take(7)
    assert sorted(int(tf.reduce_sum(row)) - 1 for batch in first for row in batch.mask) == [1] * 4 + [2] * 16 + [3] * 64
    assert order(1, 9) == order(1, 9)
    assert order(1, 7) != order(2, 7)
    assert order(1, 14)[:84] != order(1, 14)[84:]


def test_an_example_whose_bitstrings_do_not_fit_is_refused(data, tmp_path):
    broken = tf.train.Example.FromString(example(1, 2, 2))
    broken.features.feature["b"].int64_list.value.append(0)
    write(tmp_path / "Split-train" / "x.gz", [broken.SerializeToString()])
    with pytest.raises(BitsumError, match="sum is not one bit longer than both"):
        dataset.first_batch(files(tmp_path, "train"), 10)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


def cut_between_records(path):
    content = gzip.decompress(path.read_bytes())
    first_record = content[: 16 + int.from_bytes(content[:8], "little")]
    compressor = zlib.compressobj(wbits=31)
    path.write_bytes(compressor.compress(first_record) + compressor.flush(zlib.Z_SYNC_FLUSH))


def flipped(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[len(content) // 2] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))


def uncompressed(path):
    path.write_bytes(gzip.decompress(path.read_bytes()))


def emptied(path):
    write(path, [])


def no_examples(path):
    write(path, [b"no tf.Example"] * 3)


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("damage", [truncated, cut_between_records, flipped, uncompressed, emptied, no_examples])
def test_damaged_or_empty_files_are_one_line(data, tmp_path, damage, split):
    for name in ("train", "eval"):
        write(tmp_path / f"Split-{name}" / "data_tfrecord-00000-of-00001.gz", [example(a, 1, 5) for a in range(32)])
    damage(tmp_path / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz")
    with pytest.raises(BitsumError) as refusal:
        loop.train(
            dataclasses.replace(SMALL, steps=3),
            files(tmp_path, "train"),
            files(tmp_path, "eval"),
            str(tmp_path / "logs"),
            PLAIN,
        )
    assert "\n" not in str(refusal.value) and f"Split-{split}" in str(refusal.value)
    assert ("no examples in" if damage is emptied else "cannot read the examples in") in str(refusal.value)


def test_missing_files_are_one_line(tmp_path):
    with pytest.raises(BitsumError, match=r"no files match .*Split-train"):
        dataset.batches(files(tmp_path, "train"), 10, 1)


def test_padding_does_not_count_in_the_loss():
    batch = dataset.to_batch(tf.constant([example(1, 1, 1), example(5, 3, 3)]))
    # Sums 0 1 and 0 0 0 1. Right bits cost log(1 + e**-2) each at a margin of 2, the padding's would cost more.
    logits = tf.constant([[-2.0, 2.0, 50.0, 50.0], [-2.0, -2.0, -2.0, 2.0]])
    assert float(loop.data_loss(logits, batch, "cross_entropy")) == pytest.approx(np.log1p(np.exp(-2)), rel=1e-5)
    assert float(loop.data_loss(logits, batch, "quadratic")) == pytest.approx((1 / (1 + np.exp(2))) ** 2, rel=1e-5)


def test_measures_count_wrong_bits_and_sums_without_the_padding():
    batch = dataset.to_batch(tf.constant([example(1, 1, 1), example(5, 3, 3)]))
    logits = tf.constant([[-2.0, 2.0, 50.0, 50.0], [-2.0, 2.0, -2.0, 2.0]])
    cell = types.SimpleNamespace(start=lambda batch: None, run=lambda a, b, state: (logits, None))
    found = loop.measures(cell, batch, "cross_entropy")
    assert float(found["accuracy"]) == pytest.approx(5 / 6)
    assert float(found["exact"]) == 0.5


def test_noise_is_uniform_and_decided_by_seed_and_step():
    batch = dataset.to_batch(tf.constant([example(5, 3, 3)] * 100))
    settings = Train(seed=3, state_noise=0.5)
    noise = loop.state_noise(batch, 16, settings, tf.constant(7))
    assert noise.shape == (4, 100, 16)
    assert -0.5 <= np.min(noise) < -0.49 and 0.49 < np.max(noise) < 0.5
    assert abs(np.mean(noise)) < 0.02
    np.testing.assert_array_equal(noise, loop.state_noise(batch, 16, settings, tf.constant(7)))
    assert not np.array_equal(noise, loop.state_noise(batch, 16, settings, tf.constant(8)))
    assert not np.array_equal(noise, loop.state_noise(batch, 16, Train(seed=4), tf.constant(7)))
    assert loop.state_noise(batch, 16, Train(state_noise=0.0), tf.constant(7)) is None


VARIANTS = [
    {},
    {"state_noise": 0.0},
    {"loss": "quadratic"},
    {"optimizer": "sgd", "learning_rate": 1.0},
    {"clip_norm": 0.0},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_loss_decreases(data, tmp_path, reports, changes):
    settings = dataclasses.replace(SMALL, **changes)
    loop.train(settings, files(data, "train"), files(data, "eval"), str(tmp_path / "logs"), PLAIN)
    held_out = dataset.first_batch(files(data, "eval"), 100)
    before = loop.measures(loop.GRU(8, settings.seed), held_out, settings.loss)
    after = reports()[-1]
    assert [report["step"] for report in reports()] == [20, 40, 60]
    assert after["loss"] < 0.96 * float(before["loss"])
    assert after["accuracy"] > float(before["accuracy"])


def test_gradients_are_clipped_to_the_global_norm(data):
    """Plain gradient descent with rate 1 moves the weights by the clipped gradient itself."""
    batch = dataset.first_batch(files(data, "train"), 32)
    settings = dataclasses.replace(SMALL, optimizer="sgd", learning_rate=1.0, clip_norm=0.01)
    cell = loop.GRU(8, seed=1)
    before = [variable.numpy() for variable in cell.trainable_variables]
    update, carried = loop.make_update(cell, settings, PLAIN)
    update(batch, tf.constant(1), carried)
    moved = np.concatenate(
        [(new.numpy() - old).ravel() for new, old in zip(cell.trainable_variables, before, strict=True)]
    )
    assert np.linalg.norm(moved) == pytest.approx(0.01, rel=1e-3)


def test_a_nan_loss_stops_the_training(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "data_loss", lambda logits, batch, loss: tf.reduce_sum(logits) * np.nan)
    with pytest.raises(
        BitsumError, match=r"^the training loss is nan after step 20: lower train.learning_rate \(0.01\)"
    ):
        loop.train(SMALL, files(data, "train"), files(data, "eval"), str(tmp_path / "logs"), PLAIN)


def weights_of(model):
    return Weights.of(model_identity.weights(str(model)))


def test_run_fn_exports_a_proven_model_that_runs_in_chunks_and_logs_for_tensorboard(data, tmp_path, reports):
    proof = ProofSettings(extra_steps=30, parallel_above=20, chunk=8)
    out = run_fn(data, tmp_path, Train(), proof=dataclasses.asdict(proof), task="addition")
    model = out / "Format-Serving"
    weights = weights_of(model)
    verdict = checker.check(certificate.write(finder.find(weights).certificate), weights)
    assert verdict.proven
    last = reports()[-1]
    assert last["step"] < 1000 and last["exact"] == 1 and last["share"] > 0 and last["bound"] > 0
    assert last["margin"] == pytest.approx(verdict.margin)
    export.save(loop.GRU(16), str(tmp_path / "chunks"), CarrySelect(ADDITION, 20, 8))
    assert graph_identity.graph_sha256(str(model)) == graph_identity.graph_sha256(str(tmp_path / "chunks"))
    [events] = (out / "logs").glob("events.out.tfevents.*")
    tags = {value.tag for record in tf.compat.v1.train.summary_iterator(str(events)) for value in record.summary.value}
    trained = {"train/loss", "train/box_loss", "train/share", "train/bound", "train/margin"}
    assert tags == trained | {"eval/loss", "eval/accuracy", "eval/exact"}


def certified_model(folder, units=8):
    """The certified cell of 8 units, exported; or a cell of another size."""
    cell = loop.GRU(units)
    if units == 8:
        loop.assign(cell, certified.weights())
    export.save(cell, str(folder / "Format-Serving"))
    (folder / trainer.SPLITS_FILE).write_text("these")
    return str(folder / "Format-Serving")


def test_a_warm_start_trains_a_proven_model_further_and_proves_the_result(data, tmp_path, reports):
    base = certified_model(tmp_path / "base")
    settings = dataclasses.replace(SMALL, steps=300, batch_size=100, state_noise=0.0, report_every=5, min_steps=40)
    proof = ProofSettings(extra_steps=0, attempt_every=5, target=2.0, box_steps=10)
    out = run_fn(
        data, tmp_path, settings, base_model=base, proof=dataclasses.asdict(proof), task="addition", splits="these"
    )
    steps = [report for report in reports() if "step" in report]
    assert next(report["warm"] for report in reports() if "warm" in report) == 1
    # The model adds right from the first report on, but no certificate counts before 40 steps on the new data.
    assert steps[0]["exact"] > 0.9
    assert 40 <= steps[-1]["step"] < 300
    assert all("margin" not in report for report in steps if report["step"] < 40)
    trained = weights_of(out / "Format-Serving")
    assert trained != weights_of(base)
    assert checker.check(certificate.write(finder.find(trained).certificate), trained).proven
    assert push_order.ancestors(str(out / "Format-Serving")) == [model_identity.weights_sha256(base)]
    settings = dataclasses.replace(settings, steps=10, seed=3)
    grandchild = run_fn(
        data, tmp_path / "on", settings, str(out / "Format-Serving"), proof={"train": False}, splits="these"
    )
    mother = model_identity.weights_sha256(str(out / "Format-Serving"))
    assert push_order.ancestors(str(grandchild / "Format-Serving")) == [mother, model_identity.weights_sha256(base)]


@pytest.mark.parametrize(("units", "splits"), [(5, "these"), (8, "others"), (8, "")])
def test_a_model_of_another_size_or_with_other_splits_gives_a_cold_start(data, tmp_path, reports, units, splits):
    other = certified_model(tmp_path / "other", units)
    config = dataclasses.replace(SMALL, steps=20)
    plain = {"train": False, "search_seconds": 0.0}
    made = run_fn(data, tmp_path / "made", config, base_model=other, proof=plain, splits=splits)
    assert (made / trainer.SPLITS_FILE).read_text() == splits
    cold = run_fn(data, tmp_path / "cold", config, proof=plain)
    assert [report for report in reports() if "warm" in report] == [{"warm": 0, "base_units": units, "units": 8}]
    assert weights_of(made / "Format-Serving") == weights_of(cold / "Format-Serving")
    assert push_order.ancestors(str(made / "Format-Serving")) == []


def test_a_base_model_that_cannot_be_read_stops_the_training(data, tmp_path):
    with pytest.raises(BitsumError, match=r"variables.index"):
        run_fn(data, tmp_path, SMALL, base_model=str(tmp_path / "missing"))


def test_run_fn_with_the_plain_loss_exports_a_model_that_runs_step_by_step(data, tmp_path, reports):
    settings = dataclasses.replace(SMALL, steps=300, units=16, learning_rate=0.02, state_noise=0.0)
    out = run_fn(data, tmp_path, settings, proof={"train": False})
    assert {"step": 300, "of": 300, "exact": 1.0}.items() <= reports()[-1].items()
    # Right on everything it is asked, and not proven.
    assert finder.find(weights_of(out / "Format-Serving")).certificate is None
    add = tf.saved_model.load(str(out / "Format-Serving")).signatures["add_bits"]
    assert add(a=tf.constant([[1, 0, 1]], tf.int64), b=tf.constant([[1, 1, 0]], tf.int64))["sum"].numpy().tolist() == [
        [0, 0, 0, 1]
    ]
    export.save(loop.GRU(16), str(tmp_path / "steps"))
    assert graph_identity.graph_sha256(str(out / "Format-Serving")) == graph_identity.graph_sha256(
        str(tmp_path / "steps")
    )
    [events] = (out / "logs").glob("events.out.tfevents.*")
    tags = {value.tag for record in tf.compat.v1.train.summary_iterator(str(events)) for value in record.summary.value}
    assert tags == {"train/loss", "eval/loss", "eval/accuracy", "eval/exact"}


def test_the_plain_loss_leaves_boxes_and_share_alone(data):
    batch = dataset.first_batch(files(data, "train"), 32)
    update, carried = loop.make_update(loop.GRU(8), SMALL, PLAIN)
    losses, following = update(batch, tf.constant(1), carried)
    assert (float(losses.box), float(losses.margin), float(following.share)) == (0, -np.inf, 0)
    np.testing.assert_array_equal(following.boxes.lower, carried.boxes.lower)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_an_update_is_the_gradient_of_the_mixed_loss_and_hands_its_boxes_on(data, task):
    """Plain gradient descent with rate 1 moves the weights by the gradient itself."""
    batch = dataset.first_batch(files(data, "train"), 32)
    settings = dataclasses.replace(SMALL, optimizer="sgd", learning_rate=1.0, clip_norm=0.0, state_noise=0.0)
    proof = ProofSettings(box_steps=2, widening=0.01, target=1.0, ready_loss=100.0, share_grow=0.125)
    cell, twin = loop.GRU(8, seed=1), loop.GRU(8, seed=1)
    update, carried = loop.make_update(cell, settings, proof, task)
    box_loss = BoxLoss(twin, task, proof)
    boxes = box_loss.start()
    for step, share in ((1, 0.0), (2, 0.125)):
        with tf.GradientTape() as tape:
            logits, _ = twin.run(batch.a, batch.b, twin.start(32))
            data_loss, bound = loop.data_loss(logits, batch, "cross_entropy"), box_loss(boxes)
            loss = (1 - share) * data_loss + share * bound.loss
        for variable, gradient in zip(
            twin.trainable_variables, tape.gradient(loss, twin.trainable_variables), strict=True
        ):
            variable.assign_sub(gradient)
        boxes = bound.boxes
        losses, carried = update(batch, tf.constant(step), carried)
        np.testing.assert_allclose(losses, [data_loss, bound.loss, bound.margin], rtol=1e-4)
        np.testing.assert_allclose(carried.boxes, boxes, atol=1e-5)
        for one, other in zip(cell.trainable_variables, twin.trainable_variables, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert float(carried.share) == 0.25


class Scripted(Attempts):
    """Accepts a certificate at the given steps, with the step as its margin; remembers the bias at each attempt."""

    def __init__(self, cell, task):
        super().__init__(cell, task)
        self.asked, self.seen = [], {}

    def attempt(self, step, depths=(0,)):
        self.asked.append((step, depths))
        self.seen[step] = self._cell.b_z.numpy()
        if step not in self.accepted:
            return False
        self.first, self.last, self.margin = self.first or step, step, float(step)
        self._kept = {"b_z": self.seen[step]}
        return True


ALL = (0, 1, 2)
EARLY = "stopped early, after step {} of 60: proven at step {}, and again at least proof.extra_steps = {} later"
SCRIPTS = [
    # accepted at, extra_steps, of the weights, first, line, attempts
    ([], 20, 60, None, None, [*((step, (0,)) for step in (10, 20, 30, 40, 50)), (60, ALL)]),
    ([20, 30, 40], 20, 40, 20, EARLY.format(40, 20, 20), [(step, (0,)) for step in (10, 20, 30, 40)]),
    ([20], 0, 20, 20, EARLY.format(20, 20, 0), [(10, (0,)), (20, (0,))]),
    # No certificate when due to stop: training continues until the next one.
    ([20, 50], 20, 50, 20, EARLY.format(50, 20, 20), [(step, (0,)) for step in (10, 20, 30, 40, 50)]),
    # No further certificate: the weights of the last one.
    (
        [20, 30],
        20,
        30,
        20,
        "the weights of step 30 are kept, the last with an accepted certificate",
        [(step, (0,)) for step in (10, 20, 30, 40, 50, 60)],
    ),
    ([60], 20, 60, 60, None, [*((step, (0,)) for step in (10, 20, 30, 40, 50)), (60, ALL)]),
]


@pytest.mark.parametrize("accepted, extra, steps, first, line, asked", SCRIPTS)
def test_training_ends_with_the_last_accepted_certificate_and_says_so(
    data, tmp_path, monkeypatch, told, accepted, extra, steps, first, line, asked
):
    made = []
    monkeypatch.setattr(loop, "Attempts", lambda cell, task: made.append(Scripted(cell, task)) or made[-1])
    monkeypatch.setattr(Scripted, "accepted", accepted, raising=False)
    # A bound that is always positive: every attempt is due.
    monkeypatch.setattr(loop.BoxLoss, "__call__", lambda self, boxes: loop.Bound(tf.zeros([]), tf.ones([]), boxes))
    cell, outcome = loop.train(
        SMALL,
        files(data, "train"),
        files(data, "eval"),
        str(tmp_path / "logs"),
        ProofSettings(attempt_every=10, extra_steps=extra),
    )
    assert outcome == (steps, first, float(steps) if first else None)
    assert made[0].asked == asked
    assert [record.getMessage() for record in told if not hasattr(record, "numbers")] == ([line] if line else [])
    np.testing.assert_array_equal(cell.b_z, made[0].seen[steps])


def test_nothing_is_attempted_before_the_bound_is_positive(data, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Attempts, "attempt", lambda self, step, depths=(0,): asked.append(step) or False)
    loop.train(
        SMALL, files(data, "train"), files(data, "eval"), str(tmp_path / "logs"), ProofSettings(attempt_every=10)
    )
    assert asked == [60]


IN_ANOTHER_PROCESS = """
import json, sys, types
import tensorflow as tf
from components.savedmodel import fingerprint as model_identity; from components.training import trainer
tf.random.set_seed(99)
fn_args = types.SimpleNamespace(**json.loads(sys.argv[1]))
trainer.run_fn(fn_args)
print(model_identity.fingerprint(fn_args.serving_model_dir))
"""


def test_another_process_trains_the_same_model_and_another_seed_another(data, tmp_path):
    settings = dataclasses.replace(SMALL, units=16, batch_size=100)
    proof = {"ready_loss": 100.0}
    run_fn(data, tmp_path / "here", settings, proof=proof)
    run_fn(data, tmp_path / "other", dataclasses.replace(settings, seed=2), proof=proof)
    there = {
        "custom_config": {"train": dataclasses.asdict(settings), "proof": proof},
        "train_files": files(data, "train"),
        "eval_files": files(data, "eval"),
        "serving_model_dir": str(tmp_path / "there"),
        "model_run_dir": str(tmp_path / "logs"),
        "base_model": None,
    }
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, json.dumps(there)]
    fingerprint = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert fingerprint == model_identity.fingerprint(str(tmp_path / "here" / "Format-Serving"))
    assert fingerprint != model_identity.fingerprint(str(tmp_path / "other" / "Format-Serving"))
