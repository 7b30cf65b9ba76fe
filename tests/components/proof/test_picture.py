"""The picture of the proof: valid XML, the same every time, and true to the certificate."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from components.proof import certificate, picture
from components.proof.certificate import Box
from components.task.transducer import ADDITION
from tests.support import certified

pytestmark = pytest.mark.fast

WEIGHTS, CERTIFICATE = certified.weights(), certificate.parse(certified.certificate())
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawn() -> ElementTree.Element:
    return ElementTree.fromstring(picture.svg(WEIGHTS, CERTIFICATE))


def texts(drawn) -> list[str]:
    return [element.text for element in drawn.iter(f"{SVG}text")]


def test_it_is_the_same_every_time_and_needs_nothing_from_elsewhere():
    text = picture.svg(WEIGHTS, CERTIFICATE)
    assert text == picture.svg(WEIGHTS, CERTIFICATE)
    assert re.findall(r"https?://\S+?(?=[\"'])", text) == ["http://www.w3.org/2000/svg"]
    assert "@import" not in text and "url(" not in text and "prefers-color-scheme: dark" in text


def test_each_colour_is_named(drawn):
    named = [text for text in texts(drawn) if text.startswith("n = ")]
    assert named == [
        "n = 0: state 0, output 0",
        "n = 1: state 0, output 1",
        "n = 2: state 1, output 0",
        "n = 3: state 1, output 1",
    ]


def test_each_box_stands_between_its_own_sides(drawn):
    across, up = picture.best_units(CERTIFICATE.boxes)
    shadows = drawn.findall(f"{SVG}rect[@class='box']")
    assert len(shadows) == 4
    values = {name: np.array([float(shadow.get(name)) for shadow in shadows]) for name in ("x", "y", "width", "height")}
    lower, upper = (np.array([getattr(box, side) for box in CERTIFICATE.boxes]) for side in ("lower", "upper"))
    # One scale, from units to pixels, fits the sides of all boxes at once.
    for pixels, sides in (
        ([values["x"], values["x"] + values["width"]], [lower[:, across], upper[:, across]]),
        ([values["y"] + values["height"], values["y"]], [lower[:, up], upper[:, up]]),
    ):
        slope, offset = np.polyfit(np.concatenate(sides), np.concatenate(pixels), 1)
        assert abs(np.concatenate(sides) * slope + offset - np.concatenate(pixels)).max() < 0.02
        assert abs(slope) > 10
    assert f"hidden unit {across}" in texts(drawn) and f"hidden unit {up}" in texts(drawn)


def test_states_of_a_run_are_dots_in_the_box_of_their_colour(drawn):
    shadows = {shadow.get("fill"): shadow for shadow in drawn.findall(f"{SVG}rect[@class='box']")}
    dots = drawn.findall(f"{SVG}circle[@class='state']")
    assert {dot.get("fill") for dot in dots} == set(shadows)
    for dot in dots:
        shadow = shadows[dot.get("fill")]
        for centre, low, size in (("cx", "x", "width"), ("cy", "y", "height")):
            assert -0.1 <= float(dot.get(centre)) - float(shadow.get(low)) <= float(shadow.get(size)) + 0.1


def test_the_run_is_that_of_the_cell():
    states, labels = picture.run(WEIGHTS, ADDITION, 300)
    outputs = states @ np.array(WEIGHTS.W_o)[:, 0] + WEIGHTS.b_o[0] > 0
    assert outputs.tolist() == [bool(output) for _, output in labels] and len(set(labels)) == 4


def box(state, output, *sides) -> Box:
    return Box(state, output, tuple(float(low) for low, _ in sides), tuple(float(high) for _, high in sides))


def test_the_drawn_units_separate_the_boxes():
    boxes = (
        box(0, 0, (0, 1), (0.0, 0.1), (-1, 1), (0.0, 0.1)),
        box(0, 1, (0, 1), (0.5, 0.6), (-1, 1), (0.0, 0.1)),
        box(1, 0, (0, 1), (0.0, 0.1), (-1, 1), (0.8, 0.9)),
        box(1, 1, (0, 1), (0.5, 0.6), (-1, 1), (0.8, 0.9)),
    )
    assert set(picture.best_units(boxes)) == {1, 3}
    assert picture.best_units((box(0, 0, (0, 1)), box(1, 1, (0, 1)))) == (0, 0)


def test_one_pair_of_boxes_far_apart_does_not_make_up_for_another_that_overlaps():
    boxes = (
        box(0, 0, (-1.0, -0.9), (0.0, 0.1), (0.0, 0.1)),
        box(0, 1, (0.9, 1.0), (0.9, 1.0), (0.0, 0.1)),
        box(1, 0, (0.9, 1.0), (0.9, 1.0), (0.2, 0.3)),
    )
    assert 2 in picture.best_units(boxes)
