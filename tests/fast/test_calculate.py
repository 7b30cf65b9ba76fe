"""The commands add, subtract and compare over a channel in memory: what they print, and of which task."""

import functools

import pytest

from components.transducer import ADDITION, COMPARISON, SUBTRACTION
from pipeline import cli
from serving import client
from tests.fast.in_memory import Channel


@pytest.mark.parametrize(
    ("command", "task", "a", "b", "printed"),
    [
        ("add", ADDITION, "13", "29", "42"),
        ("subtract", SUBTRACTION, "13", "29", "-16"),
        ("subtract", SUBTRACTION, "0xff", "0b1", "254"),
        ("subtract", SUBTRACTION, "0", "1" + "0" * 5000, "-1" + "0" * 5000),
        ("compare", COMPARISON, "13", "29", "False"),
        ("compare", COMPARISON, "29", "13", "True"),
        ("compare", COMPARISON, "29", "29", "False"),
    ],
    ids=lambda value: str(getattr(value, "name", value))[:10],
)
def test_the_answer_is_printed_and_nothing_else(monkeypatch, capsys, command, task, a, b, printed):
    monkeypatch.setattr(client, "AdderClient", functools.partial(client.AdderClient, channel=Channel(task=task)))
    assert cli.main([command, a, b]) == 0
    assert tuple(capsys.readouterr()) == (f"{printed}\n", "")


@pytest.mark.parametrize("command", ["add", "subtract", "compare"])
def test_a_negative_operand_is_refused_in_one_line(capsys, command):
    assert cli.main([command, "-5", "3"]) == 2
    assert tuple(capsys.readouterr()) == ("", "bitsum: -5 is negative: a number has to be an integer from 0 up\n")
