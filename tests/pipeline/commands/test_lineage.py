"""`bitsum lineage` shows what the steps wrote and TensorFlow's own readers read."""

import glob
import json
import os
import subprocess
import sys

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2

from pipeline import cli
from tests.support import json_tables
from tests.support.metadata_stores import COMPLETE, FAILED


def lineage(settings, capfd, *arguments):
    capfd.readouterr()
    code = cli.main(["lineage", *settings, *arguments])
    output = capfd.readouterr()
    assert code == 0, output.err
    if "--json" not in arguments:
        return output.out
    found = json.loads(output.out)
    json_tables.check("bitsum lineage", found)
    return found


def test_a_warm_start_is_shown_with_its_base_versions(store, capfd):
    first = store.run("monday", span=1, version=7, margin=4.0)
    second = store.run("tuesday", span=2, version=8, margin=4.5, base=first["model"])
    third = store.run("wednesday", span=3, version=9, margin=5.0, base=second["model"])
    found = lineage(store.settings, capfd, "9", "--json")
    assert [(base["run"], base["version"], base["artifact"]) for base in found["bases"]] == [
        ("tuesday", 8, second["model"]),
        ("monday", 7, first["model"]),
    ]
    # The data of the model itself, not of its bases.
    assert [(span["span"], span["artifact"]) for span in found["spans"]] == [(3, third["examples"])]
    assert (found["run"], found["margin"], found["code_sha256"], found["config"]["sha256"]) == (
        "wednesday",
        5.0,
        "c0de",
        "c0ffee",
    )
    assert found["config"]["knobs"]["BitstringExampleGen.data"] == {"span": 3, "seed": 1}
    assert found["config"]["knobs"]["Pusher"] == {"config_hash": "c0ffee", "task": "addition"}
    assert [(gate["gate"], gate["word"]) for gate in found["gates"]] == [
        ("evaluation", "blessed"),
        ("proof", "proven"),
        ("infra validation", "blessed"),
    ]
    assert [by["node"] for by in found["blessed_by"]] == ["Evaluator", "Prover", "InfraValidator", "Pusher"]
    assert {by["run"] for by in found["blessed_by"]} == {"wednesday"}
    assert "warm start from artifact" in lineage(store.settings, capfd, "9")
    assert "cold start" in lineage(store.settings, capfd, "7")


def test_without_a_version_the_newest_is_shown(store, capfd):
    store.run("monday", version=7)
    store.run("tuesday", version=8)
    store.run("wednesday", exact=0.5)
    assert lineage(store.settings, capfd, "--json")["version"] == 8


def test_a_later_run_that_pushed_nothing_new_is_not_the_origin(store, capfd):
    first = store.run("monday", version=7)
    again = {"pushed": 1, "is_new": 0, "pushed_version": "7", "pushed_destination": str(store.config.push_to / "7")}
    store.execution("tuesday", "Pusher", {"model": first["model"]}, {"pushed_model": again}, task="addition")
    assert lineage(store.settings, capfd, "7", "--json")["run"] == "monday"


def test_a_window_is_shown_span_by_span_with_anomalies(store, capfd):
    old = store.run("monday", span=1, exact=0.5)
    (store.folder(old["wrong"]) / "anomalies.json").write_text(json.dumps({"anomalies": {"wrong sum": 3}}))
    new = store.run("tuesday", span=2, exact=0.5)
    window = {"examples": new["examples"], "earlier": old["examples"], "schema": new["schema"]}
    train = store.execution("tuesday", "Trainer", window, {"model": {}, "model_run": {}})
    push = {"pushed": 1, "is_new": 1, "pushed_version": "9", "pushed_destination": str(store.config.push_to / "9")}
    store.execution("tuesday", "Pusher", {"model": train["model"]}, {"pushed_model": push}, task="addition")
    spans = lineage(store.settings, capfd, "9", "--json")["spans"]
    assert [(span["span"], span["anomalies"]) for span in spans] == [(1, ["3 x wrong sum"]), (2, [])]


def test_a_span_given_as_a_date_and_the_notes_of_its_import_are_shown(store, capfd):
    made = store.run("monday", span=20779, version=7)
    [examples] = store.client.get_artifacts_by_id([made["examples"]])
    examples.custom_properties["span_date"].string_value = "2026-11-22"
    examples.custom_properties["notes"].string_value = "ignored: README\npairs.csv line 3: no newline"
    store.client.put_artifacts([examples])
    [span] = lineage(store.settings, capfd, "7", "--json")["spans"]
    assert (span["span"], span["date"]) == (20779, "2026-11-22")
    assert span["notes"] == ["ignored: README", "pairs.csv line 3: no newline"]
    [line] = [line for line in lineage(store.settings, capfd, "7").splitlines() if line.startswith("  span ")]
    assert line.startswith("  span 2026-11-22 ")
    assert "; no anomalies; ignored: README; pairs.csv line 3: no newline; " in line


def test_drift_of_the_next_span_or_of_a_refused_run_is_not_shown(store, capfd):
    first = store.run("monday", span=1, version=7)
    second = store.run("tuesday", span=2, version=8)
    for name, state, previous in (("it drifted", COMPLETE, first), ("it is not like what is asked", FAILED, first)):
        read = {"statistics": second["statistics"], "previous": previous["statistics"]}
        drift = store.execution("tuesday", "DriftValidator", read, {"drift": {}})
        anomalies = anomalies_pb2.Anomalies(anomaly_info={"a": anomalies_pb2.AnomalyInfo(description=name)})
        (store.folder(drift["drift"]) / "Split-train").mkdir()
        (store.folder(drift["drift"]) / "Split-train" / "SchemaDiff.pb").write_bytes(anomalies.SerializeToString())
        blessing = {"blessing": {"span": 2}} if state == COMPLETE else {}
        store.execution(
            "tuesday", "DataGate", {"examples": second["examples"], "drift_anomalies": drift["drift"]}, blessing, state
        )
    assert lineage(store.settings, capfd, "7", "--json")["spans"][0]["anomalies"] == []
    assert lineage(store.settings, capfd, "8", "--json")["spans"][0]["anomalies"] == ["Split-train, a: it drifted"]


def test_an_unknown_version_is_one_line(store, tmp_path, capfd):
    store.run("monday", version=7)
    for settings, words in (
        (store.settings, "does not know version 5"),
        (("--set", f"pipeline.root={tmp_path / 'no'}"), "bitsum run"),
    ):
        assert cli.main(["lineage", *settings, "5"]) == 1
        output = capfd.readouterr().err
        assert words in output and len(output.splitlines()) == 1
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("command", ["lineage", "history", "gc"])
def test_neither_tensorflow_nor_tfx_is_imported(store, command):
    store.run("monday", version=7)
    program = f"import sys; from pipeline import cli; assert not cli.main({[command, *store.settings]!r})\n" + (
        "print([name for name in ('tensorflow', 'tfx', 'apache_beam', 'numpy', "
        "'tensorflow_model_analysis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


@pytest.mark.long
def test_the_lineage_of_a_real_run_is_what_tensorflow_reads(bitsum_run, tmp_path, capfd):
    code, _, err = bitsum_run()
    assert code == 0, err
    settings = ("--set", f"pipeline.root={tmp_path / 'var'}")
    found = lineage(settings, capfd, "--json")

    import tensorflow as tf
    import tensorflow_data_validation as tfdv
    import tensorflow_model_analysis as tfma

    from pipeline.records import evaluation

    artifacts = tmp_path / "var" / "artifacts"
    [events] = glob.glob(str(artifacts / "Trainer/model_run/*/*tfevents*"))
    curve = {}
    for event in tf.compat.v1.train.summary_iterator(events):
        for value in event.summary.value:
            curve.setdefault(event.step, {"step": event.step})[value.tag] = float(tf.make_ndarray(value.tensor))
    assert found["training"]["curve"] == [curve[step] for step in sorted(curve)] and len(curve) > 1

    [span] = found["spans"]
    for split, records in span["records"].items():
        [statistics] = glob.glob(str(artifacts / f"StatisticsGen/statistics/*/Split-{split}/FeatureStats.pb"))
        assert records == tfdv.load_stats_binary(statistics).datasets[0].num_examples
    assert span["records"].keys() == {"train", "eval", "long"} and span["anomalies"] == []

    [metrics] = glob.glob(str(artifacts / "Evaluator/evaluation/*"))
    slices = tfma.load_eval_result(metrics).slicing_metrics
    rates = {dict(key)["length"]: values["sum"][""]["exact_match"]["doubleValue"] for key, values in slices if key}
    assert evaluation.exact_match_by_length(metrics) == rates
    manifest = json.loads((tmp_path / f"var/serving/bitsum/{found['version']}/assets.extra/manifest.json").read_text())
    assert (found["run"], found["code_sha256"]) == (manifest["origin"]["run"], manifest["origin"]["code_sha256"])
    assert found["config"]["sha256"] == manifest["origin"]["config_sha256"] and found["state"] == "files as pushed"
    assert {(by["host"], by["process"]) for by in found["blessed_by"]} == {(os.uname().nodename, os.getpid())}
    [report] = glob.glob(str(artifacts / "Prover/certificate/*/report.json"))
    with open(report) as file:
        assert found["margin"] == pytest.approx(json.load(file)["margin"], rel=1e-5)
