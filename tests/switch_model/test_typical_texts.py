"""Bounds of a classifier's training texts, by hand; damaged ones are none."""

from dataclasses import asdict

import pytest

from switch_model import save_checkpoint
from switch_model.analysis.typical_texts import FEWEST_TEXTS, TYPICAL, TypicalTexts

# Thirteen tokens, each a word; one of them is punctuation.
TEXT = "oil prices rose as traders worried about the a.i team won"


@pytest.fixture
def bounds(predictor):
    return TypicalTexts.of([predictor.token_ids(TEXT)] * FEWEST_TEXTS, predictor.tokenizer)


def test_a_text_beyond_a_bound_is_told_and_by_what(predictor, bounds):
    def reasons(text: str) -> tuple[str, ...]:
        return bounds.reasons(predictor.token_ids(text), predictor.tokenizer)

    assert bounds == TypicalTexts(tokens=13, unknown=0, pieces=1, punctuation=1 / 13)
    assert reasons(TEXT) == reasons("the team won as winter prices rose") == ()
    assert reasons("Hi.") == ("3 tokens, where nearly all of them have 13 or more",)
    assert reasons("oil prices rose zzzzzz") == ("2.25 tokens per word, where nearly all of them have 1 or fewer",)
    assert reasons("oil é prices rose é as") == ()  # The tokenizer knows it as an e.
    assert reasons("oil ж prices rose ж as") == ("33.3\u00a0% of its tokens are unknown to the model",)
    (said,) = reasons("the team won (as) = oil:")
    assert said == "44.4\u00a0% of its tokens are punctuation, where nearly all of them have 7.69\u00a0% or less"
    assert TypicalTexts.of([predictor.token_ids(TEXT)] * (FEWEST_TEXTS - 1), predictor.tokenizer) is None


DAMAGES = {
    "none": None,
    "no object": [13, 0, 1, 0.1],
    "a bound less": {"pieces": ...},
    "a word": {"tokens": "13"},
    "a truth": {"unknown": True},
    "no number": {"punctuation": float("nan")},
    "without end": {"tokens": float("inf")},
    "negative": {"tokens": -1},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_bounds_in_a_file_are_none(predictor, bounds, damage, tmp_path):
    assert TypicalTexts.noted(bounds.to_note()) == bounds
    values = damage
    if isinstance(damage, dict):
        values = {name: bound for name, bound in (asdict(bounds) | damage).items() if bound is not ...}
    save_checkpoint(predictor.model, predictor.tokenizer, tmp_path / "own", training={TYPICAL: values})
    assert TypicalTexts.at(tmp_path / "own") is None
