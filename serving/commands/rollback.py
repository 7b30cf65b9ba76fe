"""`bitsum rollback`: restore the previously stable version.

That version is still loaded, so one reload of the config is enough. The config file is updated too, so a restart keeps
the version.
"""

import argparse

from components.errors import Refusal
from components.printable import say
from serving.commands import rollout
from serving.labels import PREVIOUS, STABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum rollback`."""
    rollout.add_config_arguments(parser)
    parser.add_argument("--force", action="store_true", help="restore it even if its files on disk are damaged")
    parser.add_argument("--plan", action="store_true", help="show what would happen, and change nothing")


def run(args: argparse.Namespace) -> int:
    """Roll back and return the exit code.

    Raises:
        Refusal: no version is labelled previous, or its files are damaged.
        BitsumError: the server or the config file cannot be used.
    """
    from serving.rollout import provenance
    from serving.rollout.deployment import with_labels

    with rollout.deployment_of(args, "roll back") as deployment, deployment.locked():
        labels = deployment.labels()
        stable, previous = labels[STABLE], labels.get(PREVIOUS)
        if previous is None:
            raise Refusal(
                "rollback",
                f"{args.config_file} has no version with the label {PREVIOUS}, which a rollout sets: bitsum rollout "
                "VERSION promotes any version",
            )
        say(f"{STABLE}: version {stable} -> {previous}; {PREVIOUS}: {previous} -> {stable}")
        if args.plan:
            return 0
        damage = provenance.of(deployment.base_path() / str(previous)).damage
        if damage and not args.force:
            raise Refusal(
                "rollback",
                f"version {previous} is damaged on disk: {damage[0]} ({len(damage)} in all); --force restores the "
                "loaded copy",
            )
        before = deployment.config()
        with deployment.restoring(before):
            deployment.apply(with_labels(before, args.model_name, {STABLE: previous, PREVIOUS: stable}))
    say(f"version {previous} is {STABLE}")
    return 0
