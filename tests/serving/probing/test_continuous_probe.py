"""`bitsum probe --duration`: a server that is killed and returns with another version, signals, the metrics page."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import threading
import urllib.request
from types import SimpleNamespace

from prometheus_client import parser

from tests.serving.conftest import BITSUM, bitsum, put, serving
from tests.support.waiting import wait_for


@contextlib.contextmanager
def probing(*arguments):
    """A running prober: .lines of standard error, .page() of metrics, .end(signal) -> exit code and report."""
    command = [*BITSUM, "probe", *map(str, arguments), "--metrics_port=0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")), daemon=True)
    reader.start()

    def page():
        with urllib.request.urlopen(
            re.search(r"http://127.0.0.1:\d+/metrics", "".join(lines))[0], timeout=10
        ) as response:
            families = parser.text_string_to_metric_families(response.read().decode())
        return {
            (sample.name, *list(sample.labels.values())[1:]): sample.value
            for family in families
            for sample in family.samples
        }

    def end(number):
        process.send_signal(number)
        output = process.stdout.read()
        reader.join(30)
        return process.wait(30), json.loads(output)

    try:
        wait_for(lambda: any("/metrics" in line for line in lines) or process.poll() is not None)
        yield SimpleNamespace(lines=lines, page=page, end=end)
    finally:
        process.kill()
        process.wait()


def answered(page, version):
    return sum(
        value for key, value in page.items() if key[0] == "bitsum_probe_answers_total" and key[2:] == (version, "right")
    )


def test_a_killed_server_returns_with_another_version(models, tmp_path):
    base_path, flags = tmp_path / "base", ["--server=embedded"]
    base_path.mkdir()
    put(models / "right", base_path, 1)
    with serving(base_path, *flags) as server:
        port = server.target.rpartition(":")[2]
        with probing(server.target, "--duration=0", "--rate=40", "--report_every=0.5") as prober:
            wait_for(lambda: answered(prober.page(), "1") > 20)
            assert prober.page()["probe_success",] == 1 and prober.page()["bitsum_probe_version",] == 1
            server.process.kill()
            server.process.communicate()
            wait_for(lambda: prober.page().get(("bitsum_probe_errors_total", "UNAVAILABLE"), 0) > 0)
            wait_for(lambda: prober.page()["probe_success",] == 0)
            shutil.rmtree(base_path / "1")
            put(models / "right", base_path, 2)
            server.ready_file.unlink()
            with serving(base_path, *flags, f"--port={port}"):
                wait_for(lambda: answered(prober.page(), "2") > 20)
                page = prober.page()
                code, report = prober.end(signal.SIGTERM)
    assert code == 1 and report["wrong"] == [] and not report["gave_up"]
    assert report["errors"]["UNAVAILABLE"] > 0 and report["asked"] == report["right"] + sum(report["errors"].values())
    assert set(report["versions"]) == {"1", "2"} and report["version_changes"] == 1
    assert page["probe_success",] == 1 and page["bitsum_probe_version_changes_total",] == 1
    assert report["versions"]["1"] == answered(page, "1") and report["versions"]["2"] >= answered(page, "2")
    log = "".join(prober.lines)
    assert "no model server answers" in log and "answers again after" in log
    assert "version 2 answers, previously version 1" in log and "answers right, 0 wrong" in log
    assert "Traceback" not in log


def test_a_signal_ends_a_faultless_probe_with_exit_code_0(server):
    with probing(server.target, "--duration=0", "--rate=50", "--expect_version=1") as prober:
        wait_for(lambda: answered(prober.page(), "1") > 30)
        code, report = prober.end(signal.SIGINT)
    assert code == 0 and report["asked"] == report["right"] > 30 and report["unexpected_version"] == 0
    assert "Traceback" not in "".join(prober.lines)


def test_a_duration_ends_by_itself(server):
    code, out, _ = bitsum("probe", server.target, "--duration=1", "--rate=20", "--report_every=0.4")
    lines = out.splitlines()
    assert code == 0 and len(lines) >= 2 and all("answers right, 0 wrong, no errors" in line for line in lines)


def test_a_signal_before_the_last_question_is_a_failure(server):
    with probing(server.target, "--count=100000", "--rate=50") as prober:
        wait_for(lambda: answered(prober.page(), "1") > 10)
        code, report = prober.end(signal.SIGTERM)
    assert code == 1 and report["gave_up"] and report["asked"] == report["right"] < 1000


def test_several_targets_have_separate_reports(models, server, tmp_path):
    put(models / "broken", tmp_path, 5)
    with serving(tmp_path, "--server=embedded") as broken:
        code, out, _ = bitsum("probe", server.target, broken.target, "--count", 20, "--json")
    report = json.loads(out)
    right, wrong = (report["targets"][running.target] for running in (server, broken))
    assert code == 1 and right["asked"] == right["right"] and right["version"] == 1
    assert wrong["wrong_count"] > 0 and wrong["version"] == 5
    assert report["asked"] == right["asked"] + wrong["asked"] and report["wrong_count"] == wrong["wrong_count"]
    assert {item["target"] for item in report["wrong"]} == {broken.target} and report["version_changes"] == 0
