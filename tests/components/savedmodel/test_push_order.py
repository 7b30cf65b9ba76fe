"""Which model may follow which: by the spans and the ancestors in manifests, without a metadata store."""

import json

import pytest

from components.errors import BitsumError, Refusal
from components.savedmodel import push_order, version_folder

pytestmark = pytest.mark.fast


@pytest.fixture
def served(tmp_path):
    """A function: (span, ancestors, date) -> a new version for that span with these ancestors; its number."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"graph")

    def push(span: int, ancestors=(), date="") -> int:
        origin = {push_order.SPAN: span, push_order.SPAN_DATE: date, push_order.ANCESTORS: list(ancestors)}
        identity = f"identity {len(version_folder.versions(tmp_path / 'base')) + 1}"
        return version_folder.push(tmp_path / "model", tmp_path / "base", identity, origin).version

    return push


@pytest.mark.parametrize(
    ("span", "newest", "may"),
    [
        (0, None, True),
        (5, None, True),
        (0, 0, True),
        (5, 0, True),
        (5, 4, True),
        (5, 5, True),
        (4, 5, False),
        (1, 5, False),
        (0, 1, False),
    ],
)
def test_a_later_span_is_not_replaced_and_a_single_run_is_earlier_than_every_span(served, tmp_path, span, newest, may):
    version = None if newest is None else served(newest)
    for check in (push_order.check_span, lambda *asked: push_order.check(*asked, "another identity", "weights")):
        if may:
            check(tmp_path / "base", span)
            continue
        with pytest.raises(Refusal) as refusal:
            check(tmp_path / "base", span)
        assert refusal.value.exit_code == 3 and refusal.value.gate == "push"
        for words in (f"span {span}", f"span {newest}", f"version {version} ", "--allow-older", "nothing was pushed"):
            assert words in str(refusal.value)


def test_a_span_given_as_a_date_is_named_so(served, tmp_path):
    served(20779, ["mother"], "2026-11-22")
    words = "span 2026-11-21 is earlier than span 2026-11-22 of version 1"
    with pytest.raises(Refusal, match=words):
        push_order.check_span(tmp_path / "base", 20778, "2026-11-21")
    with pytest.raises(Refusal, match="span 20778 is earlier than span 2026-11-22 of version 1"):
        push_order.check_span(tmp_path / "base", 20778)
    with pytest.raises(Refusal, match="the model of span 2026-11-23 is an ancestor of that of span 2026-11-22"):
        push_order.check(tmp_path / "base", 20780, "another identity", "mother", "2026-11-23")


def test_an_ancestor_is_refused_even_for_a_later_span_and_the_newest_model_itself_is_not(served, tmp_path):
    served(3)
    version = served(3, ["mother", "grandmother"])
    words = f"span 7 is an ancestor of that of span 3, version {version} in .*--allow-older"
    for weights in ("mother", "grandmother"):
        with pytest.raises(Refusal, match=words):
            push_order.check(tmp_path / "base", 7, "another identity", weights)
    push_order.check(tmp_path / "base", 3, "another identity", "a stranger")
    # The same model, from any run, is not pushed again.
    push_order.check(tmp_path / "base", 1, "identity 2", "mother")


def test_only_the_newest_version_counts_and_a_foreign_version_has_no_span(served, tmp_path):
    served(5)
    newest = served(0)
    push_order.check_span(tmp_path / "base", 1)
    (tmp_path / "base" / str(newest) / version_folder.MANIFEST).unlink()
    push_order.check(tmp_path / "base", 0, "identity", "weights")


def test_ancestors_are_stored_beside_the_model_and_older_models_have_none(tmp_path):
    model = tmp_path / "artifact" / "Format-Serving"
    model.mkdir(parents=True)
    assert push_order.ancestors(str(model)) == []
    push_order.write_ancestors(str(model), ["mother", "grandmother"])
    assert push_order.ancestors(str(model)) == ["mother", "grandmother"]
    assert [json.loads(file.read_text()) for file in model.parent.glob("*.json")] == [["mother", "grandmother"]]
    assert list(model.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"origin": []}',
        '{"origin": {"span": "7"}}',
        '{"origin": {"span": -1}}',
        '{"origin": {"span_date": 7}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_manifest_of_the_newest_version_refuses_every_model(tmp_path, content):
    (tmp_path / "3" / "assets.extra").mkdir(parents=True)
    push_order.check_span(tmp_path, 0)
    (tmp_path / "3" / "assets.extra" / "manifest.json").write_text(content)
    assert version_folder.manifest(tmp_path / "3") == {}
    for check in (
        lambda: push_order.check_span(tmp_path, 9),
        lambda: push_order.check(tmp_path, 9, "identity", "weights"),
    ):
        with pytest.raises(Refusal, match=r"manifest.json is damaged.*version 3.*--allow-older"):
            check()


@pytest.mark.parametrize("text", ["[", "{}", "[1]", '"ab"'])
def test_damaged_ancestors_are_reported_in_one_line(tmp_path, text):
    model = str(tmp_path / "model")
    assert push_order.ancestors(model) == []
    push_order.write_ancestors(model, ["a", "b"])
    assert push_order.ancestors(model) == ["a", "b"]
    (tmp_path / "ancestors.json").write_text(text)
    with pytest.raises(
        BitsumError, match=f"^cannot read {tmp_path}/ancestors.json, the ancestors of a model: .*; train it again$"
    ):
        push_order.ancestors(model)
