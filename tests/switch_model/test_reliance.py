"""Expert reliance of models whose experts decide, and of models whose experts don't, as their hand-made weights say."""

import numpy as np
import pytest
import torch

from switch_model import Interventions, SwitchConfig, SwitchForSequenceClassification, load_checkpoint
from switch_model.analysis import reliance as module
from switch_model.analysis.reliance import Reliance, reliance
from switch_model.analysis.scoring import batches_of, score
from tests.support.pages import save_tiny_checkpoint, save_tiny_mask_filler, save_tiny_storyteller, save_tiny_translator
from train.evaluation.reliance import known, measured, sentences, table


def made_by_hand(decide: bool) -> SwitchForSequenceClassification:
    """Token 1 stands in dimension 0 and goes to expert 0, token 2 in dimension 1 and to expert 1. The experts say in
    dimension 2 which of them they are. The classifier reads that one, or else the tokens' own."""
    config = SwitchConfig(
        vocab_size=3, d_model=8, d_kv=8, d_ff=8, num_heads=1, num_layers=1, num_experts=2, num_labels=2,
        encoder_sparse_step=1, pooling="mean", embedding_norm=False, eval_capacity_factor=None,
    )  # fmt: skip
    model = SwitchForSequenceClassification(config).eval()
    block, mlp = model.encoder.blocks[0], model.encoder.blocks[0].mlp
    with torch.no_grad():
        for weight in (*block.attention.parameters(), *mlp.parameters(), *model.shared.parameters()):
            weight.zero_()
        for weight in model.classifier.parameters():
            weight.zero_()
        for token, expert in ((1, 0), (2, 1)):
            model.shared.weight[token, expert] = 1.0
            mlp.router.classifier.weight[expert, expert] = 5.0
            mlp.experts.wi[expert, 0, :2] = 1.0
            mlp.experts.wo[expert, 2, 0] = 1.0 - 2.0 * expert
            model.classifier.weight[expert, 2 if decide else expert] = 1.0 - 2.0 * (expert and decide)
    return model


# As many texts of one class as of the other, of different lengths.
ROWS = [{"input_ids": [1 + label] * (3 + index % 4), "labels": label} for index in range(24) for label in (0, 1)]


@pytest.mark.parametrize("decide", [True, False])
def test_a_hand_made_model_needs_its_experts_or_does_not(decide):
    found = reliance(made_by_hand(decide), ROWS)
    assert found.as_it_is["accuracy"].value == 1.0 and found.chance == 0.5 and found.rows == len(ROWS)
    (layer,) = found.layers
    # A token whose expert is off goes to the other one, and its text with it.
    assert found.all_off["accuracy"].value == (0.5 if decide else 1.0)
    assert found.busiest_off["class_changes"].value == (1.0 if decide else 0.0)
    assert [one["accuracy"].value for one in layer.experts_off] == ([0.5, 0.5] if decide else [1.0, 1.0])
    assert layer.off == found.all_off and layer.shuffled == found.shuffled
    assert found.shuffled["accuracy"].high < 0.9 if decide else found.shuffled["accuracy"].low == 1.0
    said = " ".join(sentences(found))
    expected = (
        ("this model is at chance: without them 50.0\u00a0%", "It matters which")
        if decide
        else ("hardly needs", "hardly")
    )
    assert all(words in said for words in expected), said


def test_texts_of_one_class_tell_nothing_of_the_experts():
    said = " ".join(sentences(reliance(made_by_hand(True), [row for row in ROWS if row["labels"]])))
    assert "the same class" in said and "can’t be told" in said and "hardly" not in said and "at chance" not in said


def test_shuffled_choices_keep_the_loads_and_come_again(tmp_path, monkeypatch):
    model, _ = load_checkpoint(save_tiny_checkpoint(tmp_path), "cpu")
    random = np.random.default_rng(0)
    rows = [{"input_ids": random.integers(2, 15, 4 + index % 9), "labels": index % 4} for index in range(20)]
    seen = []

    def watched(model, batches, interventions=None, choices_wanted=False):
        if isinstance(interventions, list) and interventions[0].choices:
            scores = score(model, batches, interventions, choices_wanted=True)
            assert not scores.dropped
            seen.append(({*interventions[0].choices}, scores.choices))
        return score(model, batches, interventions, choices_wanted)

    monkeypatch.setattr(module, "score", watched)
    found = reliance(model, rows)
    plain = score(model, batches_of(model, rows), Interventions(capacity_factor=float("inf")), True).choices
    assert [sorted(named) for named, _ in seen] == [["encoder.1", "encoder.3"], ["encoder.1"], ["encoder.3"]]
    for named, choices in seen:
        for layer, (here, before) in zip(("encoder.1", "encoder.3"), zip(choices, plain, strict=True), strict=True):
            if layer in named:
                loads = [np.bincount(np.concatenate(one), minlength=4).tolist() for one in (here, before)]
                assert loads[0] == loads[1]
                assert not all(map(np.array_equal, here, before))
    assert reliance(model, rows) == found and Reliance.from_dict(found.to_dict()) == found
    assert reliance(model, [row | {"labels": -1} for row in rows]).figure == "agreement"


def test_of_very_many_experts_the_most_used_are_switched_off_alone_and_this_is_said(monkeypatch):
    model, rows = made_by_hand(True), [*ROWS, {"input_ids": [2] * 5, "labels": 1}]
    whole = reliance(model, rows)
    monkeypatch.setattr(module, "MOST_EXPERTS", 1)
    monkeypatch.setattr(module, "LEAST_EXPERTS", 1)
    found = reliance(model, rows)
    (layer,) = found.layers
    assert layer.experts == (1,) and layer.experts_off == whole.layers[0].experts_off[1:] and found.num_experts == 2
    assert "2 experts, the 1 most used were" in sentences(found)[-1] and "expert 1: " in table(found)[0][-1]
    # Evaluations of before don't have the numbers: all experts were measured.
    plain = whole.to_dict()
    del plain["num_experts"], plain["layers"][0]["experts"]
    assert Reliance.from_dict(plain) == whole


@pytest.mark.parametrize("save", [save_tiny_storyteller, save_tiny_translator, save_tiny_mask_filler])
def test_models_of_tokens_are_judged_by_what_they_give_the_tokens_asked_for(save, tmp_path):
    model, _ = load_checkpoint(save(tmp_path), "cpu")
    random = np.random.default_rng(0)
    rows = [{"input_ids": random.integers(3, 15, size).tolist()} for size in (5, 9, 7)]
    for row in rows:
        row["labels"] = [-100, *row["input_ids"][1:-1], -100] if save is save_tiny_mask_filler else row["input_ids"][2:]
    found = reliance(model, rows)
    off = Interventions(ablate={(layer, expert) for layer in model.config.sparse_layers for expert in range(4)})
    for effect, change in ((found.as_it_is, None), (found.all_off, off)):
        losses = []
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            causal = save is save_tiny_storyteller
            with torch.no_grad():
                output = model(ids, labels=ids if causal else labels, interventions=change)
            logits = output.logits[0, :-1] if causal else output.logits.flatten(0, -2)
            wanted = ids[0, 1:] if causal else labels[labels != -100]
            losses += torch.nn.functional.cross_entropy(logits, wanted, reduction="none").tolist()
        assert effect["perplexity"].value == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    assert found.figure == "perplexity" and len(found.layers) == len(model.config.sparse_layers)


def test_what_cannot_be_measured_or_read_is_passed_over():
    dense = SwitchForSequenceClassification(SwitchConfig(vocab_size=9, num_layers=1, encoder_sparse_step=0))
    assert measured(dense, [{"input_ids": [1], "labels": 0}], 8) == {}
    good = reliance(made_by_hand(True), ROWS[:4]).to_dict()
    for broken in (
        None,
        3,
        {},
        {"reliance": []},
        {"reliance": good | {"layers": []}},
        {"reliance": good | {"figure": "x"}},
    ):
        assert known(broken) is None
    assert known({"reliance": good}).to_dict() == good
