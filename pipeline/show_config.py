"""`bitsum config`: the configuration in force, as a TOML file that explains every knob."""

import argparse

from pipeline import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`bitsum config` has no options beside --config and --set."""


def run(args: argparse.Namespace) -> int:
    """Print the configuration."""
    print(config.to_toml(config.load(args.config, args.set)))
    return 0
