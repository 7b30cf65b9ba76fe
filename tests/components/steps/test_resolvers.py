"""Which spans, statistics and models a run in a series reads: blessed ones of earlier spans, whatever the order of the
runs."""

import shutil

import pytest
from tfx.types import standard_artifacts

from components.data import output_files
from components.steps.artifacts import DataBlessing
from components.steps.last_blessed import EarlierBlessedModelStrategy, LastBlessedModelStrategy
from components.steps.resolvers import PreviousStatisticsStrategy, WindowStrategy


class Store:
    """Artifacts as the metadata store would give them: numbered as they are made."""

    def __init__(self, folder):
        self.folder = folder
        self.examples, self.statistics, self.blessings = [], [], []
        self._last = 0

    def made(self, kind, **properties):
        self._last += 1
        artifact = kind()
        artifact.id, artifact.uri = self._last, str(self.folder / str(self._last))
        (self.folder / str(self._last)).mkdir()
        (self.folder / str(self._last) / "content").touch()
        for name, value in properties.items():
            (artifact.set_int_custom_property if isinstance(value, int) else artifact.set_string_custom_property)(
                name, value
            )
        return artifact

    def span(self, number, blessed=True, rules="r"):
        examples = self.made(standard_artifacts.Examples, span=number, splits_key=rules)
        statistics = self.made(standard_artifacts.ExampleStatistics)
        self.examples.append(examples)
        self.statistics.append(statistics)
        if blessed:
            self.blessings.append(
                self.made(DataBlessing, span=number, examples_id=examples.id, statistics_id=statistics.id)
            )
        return examples, statistics

    def window(self, current, span, window):
        inputs = {"examples": self.examples, "data_blessing": self.blessings, "current": [current]}
        return WindowStrategy(span, window).resolve_artifacts(None, inputs)["examples"]

    def previous(self, span):
        inputs = {"statistics": self.statistics, "data_blessing": self.blessings}
        return PreviousStatisticsStrategy(span).resolve_artifacts(None, inputs)["statistics"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_the_window_is_the_run_s_span_and_the_blessed_ones_before_it(store):
    spans = {number: store.span(number)[0] for number in (1, 2, 3, 4)}
    assert store.window(spans[4], 4, 3) == [spans[4], spans[3], spans[2]]
    assert store.window(spans[4], 4, 1) == [spans[4]]
    assert store.window(spans[1], 1, 3) == [spans[1]]
    # A run of an earlier span, later on.
    assert store.window(spans[2], 2, 3) == [spans[2], spans[1]]


def test_a_refused_span_is_in_no_window_and_no_drift_comparison(store):
    (first, statistics), _, (third, _) = store.span(1), store.span(2, blessed=False), store.span(3)
    assert store.window(third, 3, 3) == [third, first]
    assert store.previous(3) == [statistics]
    assert store.previous(1) == []


def test_a_repeated_span_is_read_as_blessed_last(store):
    store.span(1)
    again, statistics = store.span(1)
    store.span(1, blessed=False)
    current, _ = store.span(2)
    assert store.window(current, 2, 3) == [current, again]
    assert store.previous(2) == [statistics]


def test_spans_split_by_other_rules_and_runs_on_their_own_are_left_out(store):
    store.span(0)
    store.span(1, rules="others")
    current, _ = store.span(2)
    assert store.window(current, 2, 3) == [current]
    assert store.previous(1) == []


def test_a_span_whose_files_are_gone_is_left_out(store):
    first, _ = store.span(1)
    current, _ = store.span(2)
    shutil.rmtree(first.uri)
    assert store.window(current, 2, 3) == [current]


def _damage(artifact):
    """Record the files of the artifact, and change one."""
    artifact.set_string_custom_property(output_files.PROPERTY, output_files.record(artifact.uri))
    with open(f"{artifact.uri}/content", "w") as file:
        file.write("x")


def test_artifacts_with_damaged_files_are_ignored_with_a_warning(store, caplog):
    spans = {number: store.span(number) for number in (1, 2, 3)}
    again, _ = store.span(2)
    for artifact in (again, spans[2][1]):
        _damage(artifact)
    assert store.window(spans[3][0], 3, 2) == [spans[3][0], spans[2][0]]
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [f"Examples {again.id} is ignored: {again.uri}/content was changed"]
    assert store.previous(3) == [store.statistics[-1]]
    _damage(store.statistics[-1])
    assert store.previous(3) == [spans[1][1]]


@pytest.mark.parametrize("strategy", [EarlierBlessedModelStrategy(9), LastBlessedModelStrategy()])
def test_the_last_blessed_model_with_intact_files_counts(store, strategy):
    models = [store.made(standard_artifacts.Model) for _ in range(4)]
    blessings = [
        store.made(standard_artifacts.ModelBlessing, blessed=1, span=1, current_model_id=model.id)
        for model in models[:3]
    ]
    inputs = {"model": models, "model_blessing": blessings, "candidate": [models[3]]}
    for expected in (2, 1, 0):
        found = strategy.resolve_artifacts(None, {name: list(artifacts) for name, artifacts in inputs.items()})
        assert (found["model"], found["model_blessing"]) == ([models[expected]], [blessings[expected]])
        _damage(models[expected])
    found = strategy.resolve_artifacts(None, {name: list(artifacts) for name, artifacts in inputs.items()})
    assert found["model"] == found["model_blessing"] == []


@pytest.mark.parametrize(
    ("span", "expected"), [(1, None), (2, "one"), (3, "two again"), (4, "two again"), (5, "four"), (9, "four")]
)
def test_the_base_model_is_the_last_finally_blessed_of_an_earlier_span(store, span, expected):
    models, blessings = {}, []
    runs = (("zero", 0, 1), ("four", 4, 1), ("one", 1, 1), ("two", 2, 1), ("two again", 2, 1), ("three", 3, 0))
    for name, number, blessed in runs:
        models[name] = store.made(standard_artifacts.Model)
        properties = {"blessed": blessed, "span": number, "current_model_id": models[name].id}
        blessings.append(store.made(standard_artifacts.ModelBlessing, **properties))
    inputs = {"model": list(models.values()), "model_blessing": blessings}
    found = EarlierBlessedModelStrategy(span).resolve_artifacts(None, inputs)
    assert found["model"] == ([models[expected]] if expected else [])
    assert len(found["model_blessing"]) == len(found["model"])
