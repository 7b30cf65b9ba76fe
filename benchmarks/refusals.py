"""Broken certificates and models: does the checker refuse them, and is what it accepts right?

python -m benchmarks.refusals [--share 1.0] [--models 4] [--recipes 6] [--seed 1]

Each kind of damage is applied to certified models in turn. If the checker still accepts, a simulation in float32
decides, with all accepted models in one batch: it checks every bit and every state, for random and structured words
from the start states, and for states from the boxes. Cases that no simulation can expose are wrong by construction:
texts that are not a certificate of these weights, and time bombs, which fail later than any simulation runs.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks import broken_certificates, broken_models, simulation
from benchmarks.broken_certificates import Base
from benchmarks.float32_steps import ARTICLE, Recipe, certified, training
from components.proof import certificate as claims
from components.proof import checker, finder
from components.proof.certificate import Certificate
from components.proof.weights import Weights

SNAPSHOT = 500


class Row(NamedTuple):
    """A row of the table; `right` and `wrong` count accepted cases."""

    tried: int = 0
    refused: int = 0
    right: int = 0
    wrong: int = 0


def run(
    bases: Sequence[Base],
    recipes: Sequence[Weights],
    share: float = 1.0,
    seed: int = 1,
    check: Callable[[str | dict, Weights], checker.Verdict] = checker.check,
) -> dict[str, Row]:
    """The table, by the judgements of `check`: `share` of the cases of each kind, at least one, and of the simulated
    lengths."""
    table, accepted = {}, []
    for number, (name, kind) in enumerate((broken_certificates.kinds() | broken_models.kinds(recipes)).items()):
        count = math.ceil(kind.count * share)
        refused = 0
        for index in range(count):
            first = index % len(bases)
            case = kind.damage([*bases[first:], *bases[:first]], index, np.random.default_rng([seed, number, index]))
            text = case.certificate if case.certificate is not None else _new_boxes(case.weights)
            if text is not None and check(text, case.weights).proven:
                accepted.append((name, case._replace(certificate=text)))
            else:
                refused += 1
        table[name] = Row(count, refused)
    errors = simulation.errors([(case.weights, case.certificate) for _, case in accepted], share)
    for (name, case), count in zip(accepted, errors, strict=True):
        column = "wrong" if case.damning or count else "right"
        table[name] = table[name]._replace(**{column: getattr(table[name], column) + 1})
    return table


def article_models(count: int, seed: int = 1, recipe: Recipe = ARTICLE) -> list[Weights]:
    """Models after every SNAPSHOT steps of the article's training, of `count` seeds."""
    return [
        weights
        for number in range(count)
        for weights in training(recipe, seed + number, min(SNAPSHOT, recipe.train.steps))
    ]


def main(arguments: list[str]) -> int:
    """Print a table, a row per kind of damage; 1 if something wrong was accepted."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.refusals", description="Does the checker refuse broken certificates and models?"
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the cases and of the simulated lengths (default 1.0)"
    )
    parser.add_argument(
        "--models", type=int, default=4, help="certified models that are damaged, at least 2 (default 4)"
    )
    parser.add_argument("--recipes", type=int, default=6, help="models trained by the article's recipe (default 6)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first model and of the damage (default 1)")
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    bases = [base(*certified(options.seed + number)) for number in range(options.models)]
    table = run(bases, article_models(options.recipes, options.seed), options.share, options.seed)
    total = Row(*map(sum, zip(*table.values(), strict=True)))
    print("| damage | tried | refused | accepted, right | accepted, wrong |\n|---|---|---|---|---|")
    for name, row in [*table.items(), ("**all**", total)]:
        print(f"| {name} | " + " | ".join(f"{number:,}" for number in row) + " |")
    print(f"\n{options.models} certified models; {time.monotonic() - begin:.0f} s with their training")
    return int(total.wrong > 0)


def base(weights: Weights, certificate: Certificate) -> Base:
    return Base(weights, json.loads(claims.write(certificate)))


def _new_boxes(weights: Weights) -> str | None:
    found = finder.find(weights).certificate
    return claims.write(found) if found else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
