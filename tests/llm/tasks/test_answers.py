"""What of an answer is scored."""

from __future__ import annotations

import pytest

from shoal.llm.tasks.answers import extracted, number_of, same_number, same_text, without_end


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("4", "4"),
        (" 4 \n", "4"),
        ("4<|im_end|>", "4"),
        ("4 </s> <|endoftext|><|endoftext|>\n", "4"),
        ("<|im_end|>", ""),
        ("4<eos>4", "4<eos>4"),
    ],
)
def test_end_tokens_are_taken_off(answer: str, text: str) -> None:
    assert without_end(answer) == text


@pytest.mark.parametrize(
    ("how", "answer", "part"),
    [
        ("whole", "It is 4.", "It is 4."),
        ("last_line", "first\n\n 4 \n\n", "4"),
        ("last_line", "", ""),
        ("last_number", "2 + 3 is 5, no: 1,006.50.", "1,006.50"),
        ("last_number", "7-4", "4"),
        ("last_number", "it is -4", "-4"),
        ("last_number", "none", ""),
        ("tag", "<answer>3</answer> or <answer> 4\n</answer></s>", "4"),
        ("tag", "<answer>4", ""),
        ("boxed", r"so \boxed{3}, no: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{1", ""),
        ("boxed", "4", ""),
    ],
)
def test_the_part_that_counts(how: str, answer: str, part: str) -> None:
    assert extracted(answer, how) == part


@pytest.mark.parametrize(
    ("truth", "answer", "same"),
    [
        ("4", "4", True),
        ("4", "44", False),
        ("4", "not 4", False),
        ("4", "+04.0", True),
        ("4", "", False),
        ("1000", "1,000", True),
        ("1000", "1,00", False),
        ("True", "True", True),
        ("True", "not True", False),
        ("-3", "- 3", False),
        ("4", "4e0", False),
        ("4", "٤", False),
        ("nan", "nan", True),
    ],
)
def test_same_text(truth: str, answer: str, *, same: bool) -> None:
    assert same_text(truth, answer) is same


@pytest.mark.parametrize(
    ("truth", "answer", "tolerance", "same"),
    [
        ("0.5", "1/2", 0.0, True),
        ("35/99", "70 / 198", 0.0, True),
        ("100", "101", 0.01, True),
        ("100", "101.1", 0.01, False),
        ("-100", "-99.5", 0.01, True),
        ("0", "0.001", 0.5, False),
        ("4", "x", 1.0, False),
        ("4", "1/0", 1.0, False),
        ("4", "9" * 401, 1.0, False),
    ],
)
def test_same_number(truth: str, answer: str, tolerance: float, *, same: bool) -> None:
    assert same_number(truth, answer, tolerance=tolerance) is same


def test_numbers_are_bounded() -> None:
    assert number_of("9" * 400) == int("9" * 400)
    assert number_of("9" * 401) is None
    assert number_of("9" * 100_000) is None
