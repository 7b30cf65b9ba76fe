"""Rollouts and rollbacks on a real server: the served versions and the model config file afterwards."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys

import pytest

from benchmarks import swaps
from components import atomic
from components.savedmodel import version_folder
from serving import model_config
from serving.client import AdderClient
from serving.rollout.deployment import Deployment
from tests.serving.conftest import BITSUM, bitsum, put, serving
from tests.support import adder_model, certified_model, json_tables
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A folder of three versions of a proven model, pushed as by a pipeline; to be copied."""
    base = tmp_path_factory.mktemp("pushed") / "bitsum"
    certified_model.push(base, 3)
    return base


class Deployed:
    """A served folder of versions and its model config file."""

    def __init__(self, base, config_file, target):
        self.base, self.config_file, self.target, self.name = base, config_file, target, base.name

    def options(self):
        return ["--server", self.target, "--config_file", str(self.config_file), "--model_name", self.name]

    def run(self, command, *arguments):
        return bitsum(command, *arguments, *self.options(), timeout=120)

    def client(self, **options):
        return AdderClient(self.target, self.name, **options)

    def label(self, name):
        """The version with a label on the server."""
        with self.client(label=name) as client:
            return client.metadata().version

    def in_file(self):
        model = model_config.read(self.config_file).model_config_list.config[0]
        return list(model.model_version_policy.specific.versions), dict(model.version_labels)

    def adds(self):
        with self.client() as client:
            return client.add(2**100 - 1, 1) == 2**100


@pytest.fixture(scope="module")
def server(pushed, tmp_path_factory):
    """A server that gets its models by reloads."""
    folder = tmp_path_factory.mktemp("server")
    with running(pushed, folder / "models.config") as running_server:
        yield running_server.target


@contextlib.contextmanager
def running(base, config_file):
    """The server of a config file."""
    with serving(
        base, "--server=embedded", f"--model_config_file={config_file}", f"--model_name={base.name}"
    ) as running_server:
        yield Deployed(base, config_file, running_server.target)


@pytest.fixture
def deployed(pushed, server, tmp_path):
    """A separate model for each test; the lowest of its three versions is stable."""
    base = tmp_path / f"bitsum-{tmp_path.name}"
    shutil.copytree(pushed, base)
    first, *_ = version_folder.versions(base)
    config_file = tmp_path / "models.config"
    with Deployment(server, base.name, config_file) as deployment:
        deployment.apply(model_config.one_model(base.name, str(base), [first]))
        deployment.apply(model_config.one_model(base.name, str(base), [first], {"stable": first}))
    return Deployed(base, config_file, server)


@pytest.fixture
def traffic(deployed):
    """Clients that send requests continuously; none may fail."""
    with swaps.Traffic(deployed.target, deployed.name, clients=2, seed=1) as asking:
        yield asking
    assert asking.failures == []
    assert asking.asked["short"] > 0


def unblessed(base, model):
    """Put `model` into the folder as the newest version, without a manifest."""
    version = version_folder.versions(base)[-1] + 1
    put(model, base, version)
    return version


def stays(deployed, stable, before, done, *texts, exit_code=3):
    """The rollout was refused or failed with the given texts and changed nothing."""
    code, out, err = done
    assert code == exit_code, (out, err)
    for text in texts:
        assert text in err
    assert deployed.label("stable") == stable
    assert deployed.config_file.read_bytes() == before
    assert deployed.adds()


def test_a_good_version_becomes_stable_under_traffic_and_a_restart_keeps_it(deployed, traffic):
    first, _second, third = version_folder.versions(deployed.base)

    code, out, err = deployed.run("rollout", "--count=20", "--max_latency_ratio=100")

    assert code == 0, (out, err)
    assert f"version {third} is stable, {first} is previous" in out
    assert (deployed.label("stable"), deployed.label("previous")) == (third, first)
    assert deployed.in_file() == ([first, third], {"stable": third, "previous": first})


def test_rollback_is_immediate_and_a_restart_keeps_it(deployed):
    first, second, _ = version_folder.versions(deployed.base)
    assert deployed.run("rollout", second, "--count=5", "--max_latency_ratio=100")[0] == 0

    code, out, err = deployed.run("rollback")

    assert code == 0, (out, err)
    assert (deployed.label("stable"), deployed.label("previous")) == (first, second)
    with running(deployed.base, deployed.config_file) as restarted:
        assert (restarted.label("stable"), restarted.label("previous")) == (first, second)
        assert restarted.adds()


def test_a_rollback_needs_a_previous_version(deployed):
    stable, before = deployed.label("stable"), deployed.config_file.read_bytes()

    stays(deployed, stable, before, deployed.run("rollback"), "no version with the label previous")


def test_a_version_that_adds_wrongly_is_not_promoted(deployed, models, traffic):
    stable, before = deployed.label("stable"), deployed.config_file.read_bytes()
    wrong = unblessed(deployed.base, models / "broken")

    done = deployed.run("rollout", wrong, "--force", "--count=40", "--max_latency_ratio=1000")

    stays(
        deployed,
        stable,
        before,
        done,
        "questions wrongly; the first: ",
        "'expected'",
        f"version {wrong} is not promoted",
    )
    assert f"version {stable} stays stable" in done[1]
    assert [item.version for item in states(deployed) if item.state == "AVAILABLE"] == [stable]


def states(deployed):
    """The states of the versions after all unloading."""
    with deployed.client() as client:
        wait_for(lambda: sum(item.state != "END" for item in client.status()) == 1)
        return client.status()


def test_a_version_that_does_not_load_is_not_promoted(deployed, models):
    stable, before = deployed.label("stable"), deployed.config_file.read_bytes()
    broken = unblessed(deployed.base, models / "right")
    (deployed.base / str(broken) / "saved_model.pb").write_bytes(b"no model")

    done = deployed.run("rollout", broken, "--force", "--load_timeout=3")

    # This server retries and reports an error only after it gives up, so the rollout knows only that time is up.
    stays(deployed, stable, before, done, f"version {broken} of {deployed.name} does not load within 3 s", exit_code=1)


def test_a_version_with_changed_files_is_refused_even_with_force(deployed):
    stable, before = deployed.label("stable"), deployed.config_file.read_bytes()
    last = version_folder.versions(deployed.base)[-1]
    weights = deployed.base / str(last) / "variables" / "variables.data-00000-of-00001"
    content = bytearray(weights.read_bytes())
    content[100] ^= 0x80
    weights.write_bytes(content)

    stays(deployed, stable, before, deployed.run("rollout", "--force"), f"version {last} is damaged", "was changed")


def test_an_unblessed_version_needs_force(deployed, models):
    stable, before = deployed.label("stable"), deployed.config_file.read_bytes()
    newest = unblessed(deployed.base, models / "right")

    stays(deployed, stable, before, deployed.run("rollout"), f"no pipeline blessed version {newest}", "--force")

    code, out, err = deployed.run("rollout", "--force", "--count=5", "--max_latency_ratio=1000")
    assert code == 0, (out, err)
    assert deployed.label("stable") == newest


def test_a_slow_version_is_not_promoted(deployed, tmp_path):
    stable, before = deployed.label("stable"), deployed.config_file.read_bytes()
    adder_model.save(tmp_path / "slow", delay_steps=20_000)
    slow = unblessed(deployed.base, tmp_path / "slow")

    done = deployed.run("rollout", slow, "--force", "--count=5", "--max_latency_ratio=1.5")

    stays(deployed, stable, before, done, "too slow", "--max_latency_ratio")


def test_a_version_that_answers_recorded_requests_differently_is_not_promoted(deployed, models, tmp_path):
    """No generated question equals the recorded request, and the model is right on those questions: --count=1."""
    stable, before = deployed.label("stable"), deployed.config_file.read_bytes()
    wrong = unblessed(deployed.base, models / "broken")
    log = tmp_path / "requests"
    base = tmp_path / "logged" / "bitsum"
    base.mkdir(parents=True)
    put(models / "right", base, 1)
    logging = ("--server=embedded", f"--request_log_dir={log}", "--request_log_rate=1")
    with serving(base, *logging) as server, AdderClient(server.target, label="") as client:
        assert client.add(0b11, 0b11) == 0b110
        assert client.add(3 * 2**5000, 3 * 2**5000) == 6 * 2**5000
    assert list(log.rglob("*.tfrecords"))

    done = deployed.run(
        "rollout", wrong, "--force", "--count=1", "--seed=5", f"--requests={log}", "--max_latency_ratio=1000"
    )

    stays(deployed, stable, before, done, "is not promoted", "recorded requests differently: signature add_bits")


def test_a_plan_changes_nothing(deployed):
    stable, before = deployed.label("stable"), deployed.config_file.read_bytes()
    last = version_folder.versions(deployed.base)[-1]

    code, out, _ = deployed.run("rollout", "--plan", "--keep=1")

    assert code == 0
    assert f"load version {last} beside {stable}" in out
    code, text, _ = deployed.run("rollout", "--plan", "--keep=1", "--json")
    plan = json.loads(text)
    json_tables.check("bitsum rollout", plan)
    assert (code, plan["stable"], plan["candidate"], plan["candidate_loads"]) == (0, stable, last, True)
    assert plan["labels_after"] == {"stable": last, "previous": stable}
    assert f"versions that would be deleted (--keep 1): {version_folder.versions(deployed.base)[1]}" in out
    assert (deployed.label("stable"), deployed.config_file.read_bytes()) == (stable, before)
    assert len(version_folder.versions(deployed.base)) == 3


def test_old_versions_without_a_label_are_deleted(deployed):
    first, second, third = version_folder.versions(deployed.base)

    code, out, _ = deployed.run("rollout", third, "--count=5", "--keep=1", "--max_latency_ratio=100")

    assert code == 0
    assert version_folder.versions(deployed.base) == [first, third]
    assert f"deleted: version {second}" in out


def test_one_rollout_at_a_time(deployed):
    with atomic.lock(deployed.config_file.with_name(f".{deployed.config_file.name}.lock")):
        code, _, err = deployed.run("rollout")

    assert code == 1
    assert "another rollout or rollback" in err


def test_a_killed_rollout_leaves_stable_alone_and_the_next_rollout_succeeds(deployed, traffic):
    first, second, third = version_folder.versions(deployed.base)
    command = [*BITSUM, "rollout", str(second), "--count=100000", *deployed.options()]
    rollout = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: "canary" in deployed.in_file()[1])
    rollout.send_signal(signal.SIGKILL)
    rollout.wait()

    assert deployed.label("stable") == first
    assert deployed.in_file() == ([first, second], {"stable": first, "canary": second})
    code, out, err = deployed.run("rollout", third, "--count=5", "--max_latency_ratio=100")
    assert code == 0, (out, err)
    assert deployed.in_file() == ([first, third], {"stable": third, "previous": first})


@pytest.mark.parametrize(
    ("number", "code", "reason"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_rollout_restores_its_config(deployed, number, code, reason):
    first, second, _ = version_folder.versions(deployed.base)
    before = deployed.config_file.read_bytes()
    command = [*BITSUM, "rollout", str(second), "--count=100000", *deployed.options()]
    rollout = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: "canary" in deployed.in_file()[1])
    rollout.send_signal(number)
    _, err = rollout.communicate(timeout=60)

    assert (rollout.returncode, err) == (code, f"bitsum: {reason}: version {first} is stable\n")
    assert deployed.config_file.read_bytes() == before


@pytest.mark.parametrize("command", ["rollout", "rollback"])
def test_a_full_disk_leaves_server_and_config_file_unchanged(deployed, command):
    first, second, _ = version_folder.versions(deployed.base)
    assert deployed.run("rollout", second, "--count=5", "--max_latency_ratio=100")[0] == 0
    before = deployed.config_file.read_bytes()

    # A file of more than 0 bytes cannot be written.
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); from "
        "pipeline import cli; sys.exit(cli.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, command, *deployed.options()],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )

    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"cannot write the model config file {deployed.config_file}: File too large" in done.stderr
    assert "could not be restored" not in done.stderr
    assert (deployed.label("stable"), deployed.label("previous")) == (second, first)
    assert deployed.config_file.read_bytes() == before
    assert [path.name for path in deployed.config_file.parent.iterdir() if path.name.startswith(".")] == []


def test_a_missing_server_or_config_file_is_reported_in_one_line(tmp_path, deployed):
    options = ["--model_name", deployed.name]
    code, _, err = bitsum("rollout", "--server", "127.0.0.1:1", "--config_file", deployed.config_file, *options)
    assert (code, err.count("\n")) == (1, 1)
    assert "no model server answers at 127.0.0.1:1" in err

    code, _, err = bitsum("rollback", "--server", deployed.target, "--config_file", tmp_path / "none", *options)
    assert (code, err.count("\n")) == (1, 1)
    assert f"model config file {tmp_path / 'none'} is missing" in err


@pytest.mark.long
def test_ten_swaps_under_traffic_without_a_failed_request(deployed, capsys):
    assert swaps.measure(deployed.target, deployed.config_file, deployed.base, 10, clients=2) == 0, (
        capsys.readouterr().out
    )
