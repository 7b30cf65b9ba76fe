"""A series of runs: the data that they read, and the version served after a good span, a worse model, a better one
and a clock that was set back."""

import json
import pathlib

import pytest
import tensorflow as tf

from components.data import span_folders
from components.data.tf_examples import serialize
from components.errors import BitsumError, Refusal
from components.progress import STAGE_WIDTH
from components.savedmodel import version_folder
from components.task import addition
from pipeline import config as configuration
from pipeline import workspace
from pipeline.records import metadata_store
from pipeline.records.lineage_graph import LineageGraph
from pipeline.runner import local, node
from tests.pipeline.conftest import SMALL

EVERY_SHORT_PAIR = "a,b,sum\n" + "".join(f"{a},{b},{a + b}\n" for a in range(64) for b in range(64))


class Data:
    """The nodes of a run up to the window: all nodes that data passes before the training."""

    def __init__(self, folder: pathlib.Path):
        self.own, self.var = folder / "own", folder / "var"
        self.config = configuration.load(None, [f"pipeline.root={self.var}"])
        self.own.mkdir()

    def put(self, span: int, name: str, content: str | list[bytes]) -> None:
        """The one file of a user's own span."""
        (self.own / f"span-{span}").mkdir(exist_ok=True)
        for old in (self.own / f"span-{span}").iterdir():
            old.unlink()
        if isinstance(content, str):
            (self.own / f"span-{span}" / name).write_text(content)
            return
        with tf.io.TFRecordWriter(str(self.own / f"span-{span}" / name)) as writer:
            for record in content:
                writer.write(record)

    def run(self, span: int | str, *overrides: str) -> dict[str, bool]:
        """Which of the nodes that ran came from the cache."""
        config = configuration.load(None, [f"pipeline.root={self.var}", *SMALL, f"data.span={span}", *overrides])
        workspace.prepare(config.root)
        graph = node.compile_pipeline(config)
        run_id = f"run-{len(list(self.var.glob('run-*')))}"
        (self.var / run_id).touch()
        node.set_run_id(graph, run_id)
        connection, cached = metadata_store.connection(config), {}
        for node_id in node.node_ids(graph):
            if node_id in ("Trainer", "BaseModel"):
                continue
            try:
                cached[node_id] = node.run_node(graph, node_id, connection)
            except Exception as error:
                raise local.bitsum_error(error) or error from error
            if node_id == "SpanWindow":
                return cached

    def node(self, node_id: str, run_id: str) -> bool:
        """Run one node of a run on a user's own span 2; whether it came from the cache."""
        overrides = [f"pipeline.root={self.var}", *SMALL, "data.span=2", f"spans.source={self.own}"]
        config = configuration.load(None, overrides)
        workspace.prepare(config.root)
        graph = node.compile_pipeline(config)
        node.set_run_id(graph, run_id)
        return node.run_node(graph, node_id, metadata_store.connection(config))

    def own_run(self, span: int | str, *overrides: str) -> dict[str, bool]:
        return self.run(span, f"spans.source={self.own}", *overrides)

    def spans_of_last_window(self) -> str:
        store = metadata_store.open_store(configuration.load(None, [f"pipeline.root={self.var}"]))
        found = [
            artifact for artifact in store.get_artifacts_by_type("Examples") if "spans" in artifact.custom_properties
        ]
        return max(found, key=lambda artifact: artifact.id).custom_properties["spans"].string_value

    def report(self, span: int) -> dict:
        return json.loads((self.var / "quarantine" / f"span-{span}" / "report.json").read_text())


@pytest.fixture
def data(tmp_path):
    return Data(tmp_path)


def _record(a: int, b: int, total: int) -> bytes:
    bits = addition.to_bits(a, 8), addition.to_bits(b, 8), addition.to_bits(total, 9)
    return serialize({"a": bits[0], "b": bits[1], "sum": bits[2], "length": [8]})


def test_bad_spans_are_quarantined_and_good_ones_are_read(data):
    data.run(1)
    assert data.spans_of_last_window() == "1"

    data.put(2, "pairs.csv", EVERY_SHORT_PAIR + "200,100,301\n")
    with pytest.raises(
        Refusal, match=r"import refused: span 2 in .*: pairs.csv line 4098: wrong sum: 200 . 100 = 301, 300 is right"
    ):
        data.own_run(2)
    assert data.report(2)["gate"] == "import"

    records = [_record(a, b, a + b) for a in range(200) for b in range(10)]
    data.put(2, "pairs.tfrecord", [*records, _record(200, 100, 301)])
    with pytest.raises(
        Refusal, match=r"import refused: span 2 in .*: pairs\.tfrecord record 2000: wrong sum: .*200 . 100 = 300"
    ):
        data.own_run(2)
    assert data.report(2)["files"] == ["offenders.csv", "offenders.tfrecord.gz"]

    data.put(2, "pairs.tfrecord", [*records, b"no example"])
    with pytest.raises(Refusal, match=r"pairs\.tfrecord record 2000: not parsable.*the report is in .*/span-2"):
        data.own_run(2)
    assert "not parsable" in data.report(2)["reasons"][0]

    data.put(2, "pairs.csv", "".join(f"{a},{b}\n" for a in range(4) for b in range(4)))
    with pytest.raises(Refusal, match=r"data gate refused: the data drifted.*split 'train', length: "):
        data.own_run(2)
    assert data.report(2)["gate"] == "data gate"

    # The refused span does not affect the next one.
    data.run(3)
    assert data.spans_of_last_window() == "3,1"
    data.put(2, "pairs.csv", EVERY_SHORT_PAIR)
    data.own_run(2, "spans.max_drift=1")
    assert data.spans_of_last_window() == "2,1"
    again = data.own_run(2, "spans.max_drift=1")
    assert {name for name, cached in again.items() if not cached} == {"PreviousSpan", "WindowSpans"}
    data.run(4, "spans.window=2")
    assert data.spans_of_last_window() == "4,3"


def test_a_retried_node_records_its_last_inputs(data):
    with pytest.raises(BitsumError, match="ArithmeticValidator did not run"):
        data.node("ArithmeticValidator", "first")
    data.put(2, "pairs.csv", EVERY_SHORT_PAIR + "200,100,301\n")
    with pytest.raises(Refusal):
        data.node("BitstringExampleGen", "first")
    data.put(2, "pairs.csv", EVERY_SHORT_PAIR)
    assert not data.node("BitstringExampleGen", "first") and not data.node("ArithmeticValidator", "first")

    lineage = LineageGraph(metadata_store.open_store(data.config))
    by_node = {name: id for id, name in lineage.node_of.items()}
    generate, validate = (by_node[wanted] for wanted in ("BitstringExampleGen", "ArithmeticValidator"))
    [examples] = lineage.outputs(generate)
    assert [(link.key, link.artifact) for link in lineage.inputs(validate)] == [("examples", examples.artifact)]
    recorded = lineage.executions[generate].custom_properties["fingerprint"].string_value
    assert recorded == span_folders.fingerprint(data.own / "span-2")

    # The refused data are not reused from the cache.
    assert data.node("BitstringExampleGen", "second")
    data.put(2, "pairs.csv", EVERY_SHORT_PAIR + "200,100,301\n")
    with pytest.raises(Refusal):
        data.node("BitstringExampleGen", "third")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "span 1970-01-08 does not exist: .* has no folder span-1970-01-08 "),
        ("", "the span is empty: .* has no files with data"),
        (
            "300,300\n",
            "span 1970-01-08 has no pairs to train on: each of the 1 pairs in .*span-7 has a number longer than "
            "data.max_length = 8 bits; raise it",
        ),
    ],
)
def test_a_missing_span_is_an_error_not_a_refusal(data, text, words):
    if text is not None:
        data.put(7, "pairs.csv" if text else "_SUCCESS", text)
    with pytest.raises(BitsumError, match=words) as caught:
        data.own_run("1970-01-08", "data.long_lengths=[16]")
    assert caught.value.exit_code == 1


def test_a_source_without_a_span_is_refused(bitsum_run, tmp_path):
    code, _, errors = bitsum_run(f"spans.source={tmp_path}")
    assert code == 2
    assert "spans.source" in errors and "set data.span as well" in errors


@pytest.mark.long
def test_the_served_model_over_a_series_of_runs(bitsum_run, tmp_path):
    served = tmp_path / "var" / "serving" / "bitsum"

    def run(span: int, *overrides: str) -> tuple[int, str, str]:
        return bitsum_run("infra.examples=5", "proof.search_seconds=0", f"data.span={span}", *overrides)

    def cached(terminal: str) -> set[str]:
        return {line[2 : 2 + STAGE_WIDTH].strip() for line in terminal.splitlines() if line.endswith(" cached")}

    code, terminal, errors = run(1)
    assert (code, errors) == (0, "")
    assert "last blessed model" not in terminal
    [first] = version_folder.versions(served)

    # A short cold start: worse than the served model.
    code, terminal, errors = run(3, "train.warm_start=false", "train.steps=30")
    assert code == 3
    assert "evaluation refused: length" in errors
    assert version_folder.versions(served) == [first]

    # The same span from the weights of the last blessed model, which is span 1's: proven, no worse, and pushed.
    code, terminal, errors = run(3)
    assert (code, errors) == (0, "")
    assert "(last blessed model" in terminal
    assert "window" in cached(terminal) and "train" not in cached(terminal)
    [_, second] = version_folder.versions(served)
    assert version_folder.manifest(served / str(second))["origin"]["span"] == 3

    # A repeated run does nothing again.
    code, terminal, errors = run(3)
    assert (code, errors) == (0, "")
    assert cached(terminal) >= {
        "generate",
        "statistics",
        "validate drift",
        "data gate",
        "window",
        "train",
        "evaluate",
        "prove",
    }
    assert "already holds this model; nothing pushed" in terminal

    # The clock was set back.
    code, _, errors = run(2)
    assert code == 3
    assert f"push refused: span 2 is earlier than span 3 of version {second}" in errors
    assert version_folder.versions(served) == [first, second]
