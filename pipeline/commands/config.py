"""`bitsum config`: the effective configuration, as a TOML file that explains every knob."""

import argparse

from components.printable import say
from pipeline import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`bitsum config` has no options besides --config and --set."""


def run(args: argparse.Namespace) -> int:
    """Print the configuration."""
    say(*config.to_toml(config.load(args.config, args.set)).split("\n"))
    return 0
