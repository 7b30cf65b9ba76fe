"""The commands of the client side import no configuration: their defaults equal the configuration's
defaults."""

import argparse

import pytest

from components import settings
from pipeline import cli

pytestmark = pytest.mark.fast

SERVE = settings.Serve()
SHARED = {"server": f"{SERVE.host}:{SERVE.port}", "model_name": SERVE.model_name, "deadline": SERVE.deadline}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["add", "1", "2"], ["server", "model_name", "deadline"]),
        (["subtract", "1", "2"], ["server", "model_name", "deadline"]),
        (["compare", "1", "2"], ["server", "model_name", "deadline"]),
        (["probe", "127.0.0.1:1", "--examples", "file"], ["model_name", "deadline"]),
        (["serve", "--model_base_path=folder"], ["model_name"]),
    ],
)
def test_defaults_of_a_command_are_those_of_the_configuration(arguments, names):
    parsed: argparse.Namespace = cli.parser_for(arguments).parse_args(arguments)
    assert {name: getattr(parsed, name) for name in names} == {name: SHARED[name] for name in names}
