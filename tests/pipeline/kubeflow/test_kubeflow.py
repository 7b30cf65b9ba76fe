"""`bitsum compile`: Kubeflow's own library reads the file, and every container's command runs its node."""

import json
import pathlib
import re
import sys

import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.local import runner_utils

from components.savedmodel import version_folder
from components.task.record_checks import NOT_PARSABLE
from pipeline import cli, config
from pipeline.commands.compile import COMMAND, NAMESPACE
from pipeline.kubeflow import container as kubeflow_node
from pipeline.runner import node
from tests.pipeline.conftest import SMALL

IMAGE = "registry.example/bitsum:1"
RESOLVER = "Resolver"


@pytest.fixture
def compiled(tmp_path, capfd):
    """A function: options of `bitsum compile` -> (PipelineSpec as kfp reads it, path of the file, the output)."""

    def make(*options, overrides=()):
        path = tmp_path / "kubeflow.yaml"
        settings = [f"pipeline.root={tmp_path / 'var'}", *overrides]
        words = [word for setting in settings for word in ("--set", setting)]
        assert (
            cli.main(["compile", "--target", "kubeflow", "--image", IMAGE, "--output", str(path), *options, *words])
            == 0
        )
        loaded = kfp_components.load_component_from_file(str(path))
        return loaded.pipeline_spec, path, capfd.readouterr().out

    return make


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """Restore the working directory and the arguments of this process, which a container's command changes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_the_spec_is_the_graph_without_resolvers(compiled, tmp_path):
    spec, path, output = compiled()
    local = node.compile_pipeline(config.load(None, [f"pipeline.root={tmp_path / 'var'}"]))
    nodes = {each.pipeline_node.node_info.id: each.pipeline_node for each in local.nodes}
    resolvers = {name for name, each in nodes.items() if each.node_info.type.name.rpartition(".")[2] == RESOLVER}
    tasks = spec.root.dag.tasks
    assert set(tasks) == set(nodes) - resolvers and "LastBlessedModel" in resolvers
    for name, task in tasks.items():
        assert set(task.dependent_tasks) == set(nodes[name].upstream_nodes) - resolvers
    assert set(tasks["Pusher"].dependent_tasks) >= {"Prover", "InfraValidator", "Trainer"}
    assert (
        "StatisticsGen" not in tasks["ReadabilityGate"].dependent_tasks
        and "ReadabilityGate" in tasks["StatisticsGen"].dependent_tasks
    )
    assert "cold start" in path.read_text() and "cold start" in output
    assert set(tasks["Evaluator"].inputs.artifacts) == {"examples", "model", "schema"}


def test_a_span_is_compiled_in(compiled, tmp_path):
    tasks = compiled(overrides=["data.span=3"])[0].root.dag.tasks
    assert json.loads(_constant(tasks["BitstringExampleGen"], "data"))["span"] == 3
    local = node.compile_pipeline(config.load(None, [f"pipeline.root={tmp_path / 'var'}", "data.span=3"]))
    assert set(tasks) < set(node.node_ids(local))


def test_artifacts_and_parameters(compiled):
    spec, path, _ = compiled(overrides=["train.steps=300", "data.seed=7"])
    tasks = spec.root.dag.tasks
    [blessing] = [tasks["Pusher"].inputs.artifacts["model_blessing"].task_output_artifact]
    assert (blessing.producer_task, blessing.output_artifact_key) == ("Prover", "blessing")
    assert json.loads(_constant(tasks["BitstringExampleGen"], "data"))["seed"] == 7
    assert json.loads(_constant(tasks["Trainer"], "custom_config"))["train"]["steps"] == 300
    assert _constant(tasks["ImportSchemaGen"], "schema_file") == "components/data/schema.pbtxt"
    produced = spec.components["Prover"].output_definitions.artifacts["certificate"].artifact_type.instance_schema
    assert yaml.safe_load(produced)["title"] == f"{NAMESPACE}.Certificate"
    # No path of this machine except the knobs that name a folder.
    project = str(pathlib.Path(kubeflow_node.__file__).parents[2])
    assert project not in path.read_text()


def test_containers(compiled, tmp_path):
    spec, _, _ = compiled()
    local = node.compile_pipeline(config.load(None, [f"pipeline.root={tmp_path / 'var'}"]))
    deployment = runner_utils.extract_local_deployment_config(local)
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]
    for name, component in spec.components.items():
        container = executors[component.executor_label]["container"]
        assert container["image"] == IMAGE and tuple(container["command"]) == COMMAND
        assert container["args"][2:4] == ["--json_serialized_invocation_args", "{{$}}"]
        wanted = runner_utils.extract_executor_spec(deployment, name)
        class_path = getattr(wanted, "python_executor_spec", wanted).class_path
        assert container["args"][:2] == ["--executor_class_path", class_path]
    assert "--runner=FnApiRunner" in executors["BitstringExampleGen_executor"]["container"]["args"]


def test_cached_nodes(compiled):
    tasks = compiled()[0].root.dag.tasks
    assert not tasks["Pusher"].caching_options.enable_cache and tasks["Trainer"].caching_options.enable_cache
    # A parameter that differs from run to run would keep the outputs from being reused.
    assert [name for name, task in tasks.items() if "run_id" in task.inputs.parameters] == ["Pusher"]


def test_a_volume_for_the_push(compiled):
    spec, path, _ = compiled("--claim", "models", overrides=["pipeline.push_to=/models/bitsum"])
    _, platform = yaml.safe_load_all(path.read_text())
    [(executor, mounted)] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items()
    assert executor == "Pusher_executor" and mounted == {
        "pvcMount": [{"constant": "models", "mountPath": "/models/bitsum"}]
    }
    assert _constant(spec.root.dag.tasks["Pusher"], "destination") == "/models/bitsum"


@pytest.mark.parametrize(
    "options, code, words",
    [
        (["--image", IMAGE, "--set", "pipeline.name=My_Sums"], 2, "pipeline.name = 'My_Sums'"),
        (["--image", IMAGE, "--output", "{folder}/none/kubeflow.yaml"], 1, "No such file or directory"),
        (["--image", IMAGE, "--output", "{folder}"], 1, "is not a regular file"),
    ],
)
def test_refused(options, code, words, tmp_path, capfd):
    options = [option.format(folder=tmp_path) for option in options]
    assert cli.main(["compile", "--target", "kubeflow", "--output", str(tmp_path / "kubeflow.yaml"), *options]) == code
    assert words in (output := capfd.readouterr().err) and output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_every_container_runs_its_node(compiled, tmp_path, monkeypatch):
    """The launcher of Kubeflow Pipelines, as far as a container sees it: files instead of a bucket, one command at
    a time."""
    spec, _, _ = compiled(overrides=[*SMALL, f"pipeline.push_to={tmp_path / 'served'}"])
    monkeypatch.setattr(kubeflow_node, "MOUNTS", {"minio://": f"{tmp_path}/minio/"})
    produced = {}
    for name in _in_order(spec.root.dag.tasks):
        produced[name] = _launched(spec, name, produced, tmp_path / "kfp_outputs" / name)
        for key, artifact in produced[name].items():
            assert artifact.uri == f"minio://bucket/{name}/{key}" and kubeflow_node.local_path(artifact.uri).startswith(
                str(tmp_path)
            )
    assert produced["Prover"]["certificate"].metadata["proven"] == 1
    assert produced["Pusher"]["pushed_model"].metadata["pushed"] == 1
    [version] = version_folder.versions(tmp_path / "served")
    assert version_folder.problems(tmp_path / "served" / str(version)) == []
    assert version_folder.manifest(tmp_path / "served" / str(version))["origin"]["run"] == "run-42"


def test_a_refusal_is_one_line_and_its_exit_code(compiled, tmp_path, capfd):
    spec, _, _ = compiled()
    folder = tmp_path / "anomalies"
    folder.mkdir()
    content = {
        "records": {"train": 1},
        "anomalies": {NOT_PARSABLE: 1},
        "offenders": [["f", 0, "no example: 1 + 1 = 3"]],
    }
    (folder / "anomalies.json").write_text(json.dumps(content))
    anomalies = pipeline_spec_pb2.RuntimeArtifact(
        uri=str(folder), type={"schema_title": f"{NAMESPACE}.ArithmeticAnomalies"}
    )
    with pytest.raises(_Exit) as ended:
        _launched(spec, "ReadabilityGate", {"ArithmeticValidator": {"anomalies": anomalies}}, tmp_path / "out")
    assert ended.value.code == 3
    assert re.search(r"^bitsum: data gate refused: .*1 \+ 1 = 3", capfd.readouterr().err, re.MULTILINE)


class _Exit(Exception):
    def __init__(self, code: int):
        self.code = code


def _launched(spec, name, produced, folder):
    """Run one container's command on the inputs that the launcher would pass; returns its output artifacts."""
    task, component = spec.root.dag.tasks[name], spec.components[name]
    request = pipeline_spec_pb2.ExecutorInput()
    for key, source in task.inputs.artifacts.items():
        artifact = produced[source.task_output_artifact.producer_task][source.task_output_artifact.output_artifact_key]
        request.inputs.artifacts[key].artifacts.add().CopyFrom(artifact)
    for key, value in task.inputs.parameters.items():
        request.inputs.parameter_values[key].CopyFrom(value.runtime_value.constant)
    if "run_id" in request.inputs.parameter_values:
        assert request.inputs.parameter_values["run_id"].string_value == "{{$.pipeline_job_uuid}}"
        request.inputs.parameter_values["run_id"].string_value = "run-42"
    for key, output in component.output_definitions.artifacts.items():
        uri = f"minio://bucket/{name}/{key}"
        request.outputs.artifacts[key].artifacts.add(name=key, type=output.artifact_type, uri=uri)
    request.outputs.output_file = str(folder / "output_metadata.json")
    container = json_format.MessageToDict(spec.deployment_spec)["executors"][component.executor_label]["container"]
    arguments = [json_format.MessageToJson(request) if word == "{{$}}" else word for word in container["args"]]
    code = kubeflow_node.main(arguments)
    if code:
        raise _Exit(code)
    answer = json_format.Parse((folder / "output_metadata.json").read_text(), pipeline_spec_pb2.ExecutorOutput())
    return {
        key: _as_stored(request.outputs.artifacts[key].artifacts[0], listed.artifacts[0])
        for key, listed in answer.artifacts.items()
    }


def _as_stored(asked, answered):
    """The artifact as a later task gets it: named by the title of its type, as the metadata store keeps types."""
    title = yaml.safe_load(asked.type.instance_schema)["title"]
    stored = pipeline_spec_pb2.RuntimeArtifact(name=asked.name, uri=answered.uri, type={"schema_title": title})
    stored.metadata.CopyFrom(answered.metadata)
    return stored


def _in_order(tasks):
    done = []
    while len(done) < len(tasks):
        done += sorted(
            name for name, task in tasks.items() if name not in done and set(task.dependent_tasks) <= set(done)
        )
    return done


def _constant(task, name):
    return task.inputs.parameters[name].runtime_value.constant.string_value
