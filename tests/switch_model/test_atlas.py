"""The expert atlas: what was planted is found, what topic or chance makes is not; effects against hand-made ones."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from switch_model import Interventions, SwitchConfig, SwitchForSequenceClassification
from switch_model.analysis.atlas import _Tables, _Tested, expert_atlas
from switch_model.analysis.corpus import Corpus, route_corpus
from switch_model.analysis.effects import expert_effects
from train.analysis.atlas import atlas_csv, atlas_html, atlas_json
from train.evaluation.measured_rows import rows_of

N, T, V, E = 120, 40, 24, 8


def routed(expert_of) -> Corpus:
    """A corpus of two classes: tokens at random, and the expert (K,) that `expert_of` gives (token, text, random)."""
    random = np.random.default_rng(0)
    text, token = np.repeat(np.arange(N), T), random.integers(V, size=N * T)
    labels = np.arange(N) % 2
    words = [f"w{one}" for one in range(V)]
    experts = np.stack([expert_of(token, text, random), random.integers(E, size=N * T)])
    return Corpus(
        texts=[" ".join(words[one] for one in token[text == own]) for own in range(N)],
        classes=["even", "odd"],
        true=labels,
        predicted=labels,
        probability=np.ones(N),
        layers=("encoder.1", "encoder.3"),
        num_experts=E,
        text=text,
        position=np.tile(np.arange(T), N),
        token=token,
        start=np.zeros(N * T, dtype=np.int64),
        end=np.full(N * T, 2),
        expert=experts,
        dropped=np.zeros_like(experts, dtype=bool),
        may_drop=False,
        measures=[],
        names=dict(enumerate(words)),
    )


def test_planted_tokens_are_found_and_chance_is_not():
    def planted(token, text, random):
        return np.where((token == 3) & (random.random(len(token)) < 0.7), 5, random.integers(E, size=len(token)))

    atlas = expert_atlas(routed(planted))
    there = [(one.layer, one.expert, [word.token for word in one.words if word.q <= 0.05]) for one in atlas.entries]
    assert [one for one in there if one[2]] == [("encoder.1", 5, ["w3"])]
    assert atlas.found == 1 and atlas.found_chance == 0 and atlas.vocabulary == V
    entry = atlas.entry("encoder.1", 5)
    assert entry.words[0].halves[0] > 1.5 < entry.words[0].halves[1]
    assert not any(one.q <= 0.05 for entry in atlas.entries for one in entry.classes)


def test_what_follows_a_texts_topic_is_found_for_classes_and_not_for_tokens():
    corpus = routed(lambda token, text, random: text % 2 + 2 * random.integers(E // 2, size=len(token)))
    # Even texts have the first tokens more often, so that these go to even experts more often, too.
    corpus.token[(corpus.text % 2 == 0) & (corpus.token > V // 2)] -= V // 2
    atlas = expert_atlas(corpus)
    entry = atlas.entry("encoder.1", 2)
    assert entry.classes[0].name == "even" and entry.classes[0].q <= 0.05 and entry.words[0].lift > 0.2
    assert atlas.found == 0 and entry.stability > 0.7 and entry.stability_chance > 0.7
    assert not any(one.q <= 0.05 for one in atlas.entry("encoder.3", 2).classes)


def test_p_bounds_the_hypergeometric_tail():
    # One text of 60 tokens, 20 to the expert: of the token's 12 occurrences x went there.
    tested = SimpleNamespace(counts=np.array([12]))
    for x in (6, 9, 12):
        tables = _Tables(np.array([[x]]), (None, None), np.array([[4.0]]), None)
        exact, bound = stats.hypergeom.sf(x - 1, 60, 20, 12), _Tested.p(tested, tables)[0, 0]
        assert exact <= bound <= 1 and bound < 40 * exact


def test_files_and_table_hold_every_expert_and_escape_words():
    corpus = routed(lambda token, text, random: np.where(token == 3, 5, random.integers(E, size=len(token))))
    corpus.names[3] = "<b>"
    atlas = expert_atlas(corpus)
    rows = atlas_csv(atlas).splitlines()
    assert len(rows) == 1 + 2 * E and rows[6].startswith("encoder.1,5,") and "<b> (" in rows[6]
    values = atlas_json(atlas, corpus)["experts"][5]
    assert values["words"][0]["token"] == "<b>" and values["contexts"] and values["effect"] is None
    table = atlas_html(atlas, corpus, picks=True)
    assert "<b>&lt;b&gt;</b>" in table and table.count("data-place") == 2 * E


def test_an_effect_is_the_mean_of_each_texts(predictor):
    texts = ["Oil prices rose.", "The team won the winter alert", "Oil oil oil traders worried about oil prices"]
    corpus = route_corpus(predictor, texts)
    found = expert_effects(predictor.model, rows_of(corpus, predictor), [("encoder.1", 2)])
    changes, flipped = [], []
    for text in texts:
        before = predictor(text)
        tokens = (before.routing[0].expert[0] == 2).nonzero().flatten().tolist()
        after = predictor(text, Interventions(ablate_at={("encoder.1", token): {2} for token in tokens}))
        changes.append(after.scores[before.label] - before.scores[before.label])
        flipped.append(after.label != before.label)
    effect = found["encoder.1", 2]
    assert effect.change == pytest.approx(np.mean(changes), abs=1e-6) and effect.flipped == np.mean(flipped)
    assert effect.low <= effect.chance <= effect.high and effect.texts == 3


def test_an_expert_that_decides_does_more_than_random_ones_of_its_load():
    config = SwitchConfig(
        vocab_size=3, d_model=8, d_kv=8, d_ff=8, num_heads=1, num_layers=1, num_experts=3, num_labels=2,
        encoder_sparse_step=1, pooling="mean", embedding_norm=False, eval_capacity_factor=None,
    )  # fmt: skip
    model = SwitchForSequenceClassification(config).eval()
    mlp = model.encoder.blocks[0].mlp
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        for norm in (
            model.encoder.blocks[0].attention_norm,
            model.encoder.blocks[0].mlp_norm,
            model.encoder.final_norm,
        ):
            norm.weight.fill_(1.0)
        for token, expert in ((1, 0), (2, 1)):  # Both go to expert 2 where their own is off.
            model.shared.weight[token, expert] = 1.0
            mlp.router.classifier.weight[expert, expert] = 5.0
            mlp.router.classifier.weight[2, expert] = 2.0
        mlp.experts.wi[0, 0, 0], mlp.experts.wo[0, 2, 0] = 1.0, 1.0  # Expert 0 alone says something.
        model.classifier.weight[1, 2] = 3.0
    random = np.random.default_rng(0)
    rows = [{"input_ids": random.permutation([1] * 6 + [2] * 6)} for _ in range(12)]
    found = expert_effects(model, rows)
    decides, idle, unused = (found["encoder.0", expert] for expert in range(3))
    assert decides.change < decides.low < 0 and decides.q < 0.01
    assert idle.change == 0 and idle.chance == pytest.approx(decides.chance, rel=0.3) and idle.q < 0.01
    assert (unused.change, unused.p) == (0, 1)
    few = expert_effects(model, rows, most=500)  # Of 60 tokens for each text and expert.
    assert len(few) == 1
