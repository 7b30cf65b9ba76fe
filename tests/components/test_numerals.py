"""components.numerals: numerals of users, and numbers longer than Python converts itself."""

import subprocess
import sys

import pytest

from components import numerals

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("13", 13),
        ("0013", 13),
        ("0xff", 255),
        ("0XFf", 255),
        ("0b101", 5),
        ("0B0", 0),
        (" +0x0f\t", 15),
        ("+1", 1),
        ("-0", 0),
        ("-0x00", 0),
        ("000000", 0),
    ],
)
def test_decimal_hexadecimal_and_binary(text, value):
    assert numerals.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "1.5",
        "1e3",
        "1_000",
        "1,000",
        "1 000",
        "0x",
        "0xg",
        "0x_1",
        "0x-1",
        "--1",
        "+",
        "0b2",
        "0o7",
        "ff",
        "٣",
        "²",
    ],
)
def test_text_other_than_a_number_is_refused(text):
    with pytest.raises(ValueError, match="is not "):
        numerals.parse(text)


@pytest.mark.parametrize(("text", "value"), [("-1", -1), ("-0x5", -5), ("-" + "9" * 4000, 1 - 10**4000)])
def test_negative_numbers_are_results_but_no_operands(text, value):
    assert numerals.parse(text) == value
    with pytest.raises(ValueError, match="is negative") as failure:
        numerals.operand(text)
    assert len(str(failure.value)) < 200


@pytest.mark.parametrize("digits", [1, 640, 641, 4301, 20_000])
def test_numbers_of_any_length_go_both_ways(digits):
    # 10^n - 1 is n nines, 10^n a one and n zeros.
    assert numerals.parse("9" * digits) == 10**digits - 1
    assert numerals.written(10**digits - 1) == "9" * digits
    assert numerals.written(10**digits) == "1" + "0" * digits


def test_zero_has_one_digit():
    assert numerals.written(0) == "0"


def test_a_long_refused_text_is_abbreviated():
    with pytest.raises(ValueError) as failure:
        numerals.parse("x" * 10_000)
    assert len(str(failure.value)) < 200 and "10000 characters" in str(failure.value)


@pytest.mark.parametrize(("value", "text"), [(-16, "-16"), (0, "0"), (42, "42"), (True, "True"), (False, "False")])
def test_answers_as_text(value, text):
    assert numerals.written(value) == text


def test_a_long_difference_has_its_sign():
    assert numerals.written(-(10**5000)) == "-1" + "0" * 5000


def test_zeros_before_a_long_number_change_nothing():
    assert numerals.parse("0" * 1000 + "9" * 1000) == 10**1000 - 1


@pytest.mark.parametrize(("base", "text"), [(16, "-0x10"), (2, "-0b10000"), (10, "-16")])
def test_answers_in_other_bases(base, text):
    assert numerals.written(-16, base) == text
    assert numerals.written(2**30_000, 16) == "0x1" + "0" * 7500 and numerals.written(True, base) == "True"


@pytest.mark.parametrize("bound", ["640", "0"])
def test_pythons_digit_limit_is_unchanged_and_gmp_is_imported_only_for_long_numbers(bound):
    program = (
        "import sys\nfrom components import numerals\n"
        "assert numerals.written(numerals.parse('13') + 29) == '42' and 'gmpy2' not in sys.modules\n"
        "assert numerals.written(numerals.parse('9' * 640)) == '9' * 640\n"
        "assert numerals.written(numerals.parse('9' * 100_000)) == '9' * 100_000 and 'gmpy2' in sys.modules\n"
        "print(sys.get_int_max_str_digits())"
    )
    done = subprocess.run(
        [sys.executable, f"-Xint_max_str_digits={bound}", "-c", program], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (f"{bound}\n", "")
