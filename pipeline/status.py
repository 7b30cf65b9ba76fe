"""`bitsum status`: what is pushed, whether its files are those of the push, and what the model server serves."""

import argparse

from components import version_folder
from pipeline import config as configuration
from pipeline.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bitsum status`."""
    parser.add_argument("--server", metavar="HOST:PORT", help="the model server to ask (default: serve.host and serve.port)")


def run(args: argparse.Namespace) -> int:
    """Print the status; 1 if a pushed version's files are not those of its manifest."""
    config = configuration.load(args.config, args.set)
    versions = version_folder.versions(config.push_to)
    damaged = [problem for version in versions for problem in _pushed(config, version)]
    if not versions:
        print(f"nothing is pushed in {config.push_to}: bitsum run pushes")
    for problem in damaged:
        print(f"DAMAGED: {problem}")
    print(_served(config, args.server or f"{config.serve.host}:{config.serve.port}"))
    return 1 if damaged else 0


def _pushed(config: Config, version: int) -> list[str]:
    folder = config.push_to / str(version)
    origin = version_folder.manifest(folder).get("origin", {})
    problems = version_folder.problems(folder)
    print(f"version {version}: {'DAMAGED' if problems else 'files as pushed'}, run {origin.get('run', 'unknown')}, {folder}")
    return problems


def _served(config: Config, target: str) -> str:
    from serving.client import AdderClient, ServingError

    try:
        with AdderClient(target, model_name=config.serve.model_name, deadline=config.serve.deadline) as client:
            states = client.status()
    except ServingError as error:
        return f"server {target}: {error}"
    return f"server {target}: " + ", ".join(f"version {state.version} {state.state}" for state in states)
