"""A routed data set agrees with the predictor text by text, and its measures with tables counted by hand."""

import numpy as np
import pytest

from switch_model import Predictor
from switch_model.analysis.corpus import route_corpus, route_in_steps
from switch_model.analysis.specialization import (
    caution,
    class_counts,
    class_information,
    contexts,
    drop_rate_by_position,
    find,
    lift,
    listed_tokens,
    right_against_wrong,
    vocabulary,
)
from switch_model.analysis.statistics import distinct_experts, shared_information, shuffled_information
from switch_model.routing import transitions
from tests.support.pages import LABELS, save_tiny_checkpoint

TEXTS = ["Oil prices rose.", "", "The team won the winter alert", "Oil oil oil traders worried about oil prices", "won"]
TRUE = [2, 0, 1, 2, 1]


@pytest.fixture(scope="module")
def corpus(predictor):
    return route_corpus(predictor, TEXTS, TRUE)


def test_every_text_is_routed_as_it_is_alone(predictor, corpus):
    assert corpus.texts == [text for text in TEXTS if text] and corpus.true.tolist() == [2, 1, 2, 1]
    for index, text in enumerate(corpus.texts):
        alone, mine = predictor(text), corpus.text == index
        assert corpus.classes[corpus.predicted[index]] == alone.label
        assert corpus.probability[index] == pytest.approx(alone.scores[alone.label], abs=1e-5)
        for layer, record in enumerate(alone.routing):
            assert corpus.expert[layer, mine].tolist() == record.expert[0].tolist()
            assert corpus.dropped[layer, mine].tolist() == record.dropped[0].tolist()
        starts = list(zip(corpus.start[mine].tolist(), corpus.end[mine].tolist(), strict=True))
        assert starts == alone.offsets and corpus.position[mine].tolist() == list(range(len(starts)))
    assert corpus.accuracy == pytest.approx((corpus.predicted == corpus.true).mean())
    assert corpus.measures[0]["tokens"] == len(corpus.token)


def test_it_says_how_far_it_is_and_what_it_can_not_do(predictor, tmp_path):
    steps = list(route_in_steps(predictor, TEXTS))
    assert steps[-1] == (4, 4)
    with pytest.raises(ValueError, match="visible character"):
        route_corpus(predictor, ["", "  "])
    dense = save_tiny_checkpoint(tmp_path / "dense", encoder_sparse_step=0)
    with pytest.raises(ValueError, match="no sparse layer"):
        route_corpus(Predictor.from_checkpoint(dense, "cpu"), TEXTS)


def test_class_counts_lift_and_information_by_hand(corpus):
    counts = class_counts(corpus, "encoder.1")
    assert counts.shape == (len(LABELS), 4) and counts.sum() == len(corpus.token)
    assert counts[0].sum() == 0 and counts[2].sum() == np.isin(corpus.text, [0, 2]).sum()
    by_hand = lift(np.array([[9, 0], [0, 9]]))
    # (9.5 / 10) / (10 / 20), and (0.5 / 10) / (10 / 20).
    assert by_hand.tolist() == [
        pytest.approx([np.log2(1.9), np.log2(0.1)]),
        pytest.approx([np.log2(0.1), np.log2(1.9)]),
    ]
    told = class_information(corpus, "encoder.1")
    assert 0 <= told.value <= 1 and 0 <= told.chance <= told.chance_high <= 1
    # Four texts of two classes: chance tells nearly as much, and the card must say so.
    assert "Thin evidence" in caution(corpus, "encoder.1", 0)


def test_information_of_classes_that_experts_tell_apart_lies_beyond_chance(corpus):
    many = 40
    apart = replace_routes(corpus, many, lambda label: label)
    told = class_information(apart, "encoder.1")
    assert told.value == pytest.approx(1.0) and told.beyond_chance and told.chance < 0.2
    same = replace_routes(corpus, many, lambda label: 3)
    assert class_information(same, "encoder.1").value == 0 and not class_information(same, "encoder.1").beyond_chance


def replace_routes(corpus, many, expert_of):
    """`many` texts of ten tokens, of two classes in turn, each token to the expert that `expert_of` gives its class."""
    labels = np.arange(many) % 2
    text = np.repeat(np.arange(many), 10)
    experts = np.array([expert_of(label) for label in labels[text]])
    changed = {
        "texts": ["a text"] * many,
        "true": labels,
        "predicted": labels,
        "text": text,
        "position": np.arange(many * 10) % 10,
        "expert": np.stack([experts, experts]),
        "dropped": np.zeros((2, many * 10), dtype=bool),
    }
    return type(corpus)(**vars(corpus) | changed)


def test_distinct_experts_of_long_texts_count_every_choice():
    # Two texts of 30 tokens with 3 and 2 different experts of 4, and a short one that doesn't count.
    text = np.repeat([5, 2, 9], [30, 30, 4])
    experts = np.array([[0, 1]] * 29 + [[0, 2]] + [[1, 0]] * 30 + [[3, 0]] * 4)
    found = distinct_experts(text, experts, 4)
    shares = np.array([64, 59, 1, 4]) / 64
    assert (found.mean, found.texts) == (2.5, 2) and found.chance == pytest.approx(
        (1 - (1 - shares) ** 30).sum(), abs=1e-4
    )
    assert distinct_experts(text[60:], experts[60:], 4) is None


def test_vocabulary_and_contexts_show_where_a_token_went(corpus):
    words = {one.token: one for expert in range(4) for one in vocabulary(corpus, "encoder.1", expert, least=3)}
    assert words["oil"].count == 5
    shares = [
        one.share for expert in range(4) for one in vocabulary(corpus, "encoder.1", expert, 3) if one.token == "oil"
    ]
    assert sum(shares) == pytest.approx(1)
    listed = vocabulary(corpus, "encoder.1", 0, least=1)
    for one in contexts(corpus, "encoder.1", 0, listed):
        assert one.token and one.before.lstrip("…") + one.token in corpus.texts[one.text]
    places = [place for expert in range(4) for place in find(corpus, "encoder.3", expert, "OIL")]
    assert len(places) == 5 and {place.token.lower() for place in places} == {"oil"}
    assert len(find(corpus, "encoder.3", None)) == len(corpus.token)
    with pytest.raises(ValueError, match=r"encoder\.9"):
        find(corpus, "encoder.9", 0)


def test_an_experts_tokens_are_ranked_by_occurrences_times_lift_and_shown_in_context(corpus):
    # Of texts of one token each, expert 0 gets a quarter: all of 10 "rare", 60 of 80 "common", 30 of 310 others.
    token = np.repeat([0, 1, 2], [10, 80, 310])
    names, expert = {0: "rare", 1: "common", 2: "other"}, np.ones((2, 400), dtype=np.int64)
    expert[:, [*range(70), *range(90, 120)]] = 0
    words = [names[one] for one in token.tolist()]
    changed = {"texts": words, "names": names, "text": np.arange(400), "token": token, "expert": expert}
    places = {"start": np.zeros(400, dtype=np.int64), "end": np.array([*map(len, words)])}
    made = type(corpus)(**vars(corpus) | changed | places)
    first, second = listed = listed_tokens(made, "encoder.1", 0, 5)
    assert (first.token, second.token) == ("common", "rare") and first.lift < second.lift
    assert first.score == pytest.approx(60 * np.log2(60.125 / 80.5 / 0.25))
    shown = contexts(made, "encoder.1", 0, listed, 4)
    assert [one.token for one in shown] == ["common", "rare", "common", "rare"]
    assert len({one.text for one in shown}) == 4 and not contexts(made, "encoder.1", 0, [])


def test_words_and_phrases_are_found_however_they_are_split(predictor):
    texts = ["Unprofitable oil  prices", "oil and prices, unprofitable", "oils " * 40 + "oil prices"]
    corpus = route_corpus(predictor, texts)

    def found(words, expert=None):
        return [(place.text, place.token) for place in find(corpus, "encoder.1", expert, words)]

    assert found("OIL prices") == [(0, "oil  prices")]  # The last text is longer than the model reads.
    assert found("unprofitable") == [(0, "Unprofitable"), (1, "unprofitable")] and not found("profitable")
    # "oil" is a token of "oils" too.
    assert found("oil")[:2] == [(0, "oil"), (1, "oil")] and {text for text, _ in found("oil")[2:]} == {2}
    pieces = (corpus.text == 0) & (corpus.end <= len("Unprofitable"))
    assert pieces.sum() > 1
    for expert in range(4):
        assert ((0, "Unprofitable") in found("unprofitable", expert)) == (expert in corpus.expert[0, pieces])


def test_drop_rates_by_position_add_up(corpus):
    stretches = drop_rate_by_position(corpus, "encoder.1", bins=4)
    sizes = [((corpus.position >= first) & (corpus.position <= last)).sum() for first, last, _ in stretches]
    assert sum(sizes) == len(corpus.token)
    drops = sum(size * rate for size, (*_, rate) in zip(sizes, stretches, strict=True))
    assert drops == pytest.approx(corpus.dropped[0].sum())


def test_right_and_wrong_are_compared_only_where_there_are_both(corpus):
    verdicts = type(corpus)(**vars(corpus) | {"predicted": np.array([2, 0, 2, 0])})
    loads, apart = right_against_wrong(verdicts, "encoder.1")
    assert loads.sum(axis=1) == pytest.approx([1, 1]) and 0 <= apart.value <= 1
    with pytest.raises(ValueError, match="only one of the two"):
        right_against_wrong(type(corpus)(**vars(corpus) | {"predicted": corpus.true}), "encoder.1")


def test_transitions_and_what_chance_makes_of_them(predictor):
    here, there = predictor("Oil prices rose as the team won the winter alert about oil").routing
    counts = transitions(here, there)
    assert counts.sum() == here.mask.sum() and counts.sum(1).tolist() == here.choices.tolist()
    assert shared_information(transitions(here, here)) == pytest.approx(1)
    chance, high = shuffled_information(here, there)
    assert 0 < chance <= high < 1
