"""Counted words and pairs beside an encoder: what they add, what is counted, and when they stay out."""

import math

import pytest
import torch
from datasets import Dataset

from switch_model import SwitchConfig, load_checkpoint
from switch_model.checkpoint import read_training
from switch_model.layers.word_counts import WordCounts, text_features
from tests.support.heads import make, tokens
from train.arguments.arguments import Arguments
from train.data.source import DataSource
from train.data.tokenizers import tokenize, train_tokenizer
from train.evaluation.classification import evaluate
from train.training.loop import train
from train.training.resuming import resume
from train.training.word_counts import choose_weight, count_words

A, B, C = 3, 7, 9


def features_of(*ids: int) -> set[int]:
    given = torch.tensor([ids])
    return set(text_features(given, torch.ones_like(given).bool()).flatten().tolist()) - {-1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_each_known_word_and_pair_of_a_text_counts_once_wherever_it_stands(dtype):
    (a,), pair = features_of(A), features_of(A, B) - features_of(A) - features_of(B)
    counts = WordCounts(SwitchConfig(counted_rows=40, num_labels=2))
    counts.fill(torch.tensor([a, *pair]), torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    ids = torch.tensor([[A, A, A, A], [C, A, B, A], [A, B, A, B], [B, A, C, B], [A, C, A, B]])
    mask = torch.ones_like(ids).bool()
    mask[2, 0] = False  # Padding on the left.
    mask[4, 1] = False  # Neighbours of padding are no pair; those behind it are.
    found = counts.to(dtype)(ids.int(), mask)
    assert found.tolist() == [[1, 0], [1, 4], [1, 4], [1, 0], [1, 4]]


def test_two_rows_for_each_feature_leave_hardly_any_without_and_the_common_ones_first():
    torch.manual_seed(0)
    known = text_features(torch.randint(9000, (1, 3000)), torch.ones(1, 3000).bool()).unique()[1:]
    counts = WordCounts(SwitchConfig(counted_rows=2 * len(known), num_labels=2))
    counts.fill(known, torch.arange(len(known)).unsqueeze(1).expand(-1, 2).float())
    kept = torch.zeros(len(known)).bool()
    kept[counts.table[counts.marks > 0][:, 0].long()] = True
    assert kept.float().mean() > 0.95 and kept[: len(known) // 2].float().mean() > kept.float().mean()


def test_an_encoder_and_its_counts_add_up_and_need_token_ids():
    model, ids = make("classification"), tokens(2, 9)
    counted = make("classification", counted_rows=100).eval()
    words = text_features(ids, torch.ones_like(ids).bool()).unique()[1:]
    counted.counts.fill(words, torch.ones(len(words), counted.config.num_labels))
    counted.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        more = counted(ids).logits - model.eval()(ids).logits
        torch.testing.assert_close(more, counted.counts(ids, torch.ones_like(ids).bool()))
        beside = counted(ids, inputs_embeds=counted.shared(ids)).logits
        torch.testing.assert_close(beside, counted(ids).logits)
        with pytest.raises(ValueError, match=r"uses word pairs, .* counted_rows=0"):
            counted(inputs_embeds=counted.shared(ids))


def test_log_odds_are_those_of_naive_bayes():
    texts, labels = ["good good film", "good", "bad film", "dull"], [0, 0, 1, 1]
    tokenizer = train_tokenizer(texts, 60, 64, whole_words=True)
    rows = tokenize(Dataset.from_dict({"text": texts, "label": labels}), tokenizer)
    features, found = count_words(rows, tokenizer, classes=2)
    good, film = (features_of(tokenizer.convert_tokens_to_ids(word)).pop() for word in ("good", "film"))
    odds = {int(feature): own.tolist() for feature, own in zip(features, found, strict=True)}
    # Texts with each word or pair: good, good good, good film, film in class 0 five, bad, bad film, film, dull in class
    # 1 four; half a text more for each of seven features in each class.
    half = math.log(2.5 / (5 + 3.5)) - math.log(0.5 / (4 + 3.5))
    assert odds[good] == pytest.approx([half / 2, -half / 2])
    same = math.log(1.5 / (5 + 3.5)) - math.log(1.5 / (4 + 3.5))
    assert odds[film] == pytest.approx([same / 2, -same / 2])
    assert set(features[:2].tolist()) == {good, film}  # The commonest first.


def test_too_many_features_are_cut_by_how_often_they_occur(monkeypatch):
    texts = [f"often {number}" for number in range(40)]
    tokenizer = train_tokenizer(texts, 200, 64, whole_words=True)
    rows = tokenize(Dataset.from_dict({"text": texts, "label": [0, 1] * 20}), tokenizer)
    monkeypatch.setattr("train.training.word_counts.MOST_FEATURES", 30)
    features, _ = count_words(rows, tokenizer, classes=2)
    assert set(features.tolist()) == features_of(tokenizer.convert_tokens_to_ids("often"))


def test_counts_weigh_what_they_are_worth_on_the_rows_held_out():
    torch.manual_seed(0)
    labels = torch.randint(2, (400,))
    right, chance = torch.nn.functional.one_hot(labels, 2) * 2.0, torch.randn(400, 2)
    assert choose_weight(right + 0.5 * chance, 5 * chance, labels)[0] == 0
    assert choose_weight(chance, right, labels)[0] == 1
    assert choose_weight(5 * right.flip(0), right, labels)[1] < 1  # An encoder too sure of itself is tempered.


def test_a_run_ends_with_counted_words_and_tells_what_they_bring(tmp_path, capsys):
    words = [["lake", "river", "sea"], ["hill", "rock", "cliff"]]
    lines = [f"near the {words[row % 2][row % 3]} we saw {row} of them,{'ab'[row % 2]}" for row in range(300)]
    (table := tmp_path / "my.csv").write_text("\n".join(["text,label", *lines]))
    asked = {"dataset": str(table), "preset": "none", "word_counts": True, "validation_size": 0.3, "max_steps": 1}
    run = train(Arguments.resolve(asked | {"output_dir": str(tmp_path / "run")}))
    said = capsys.readouterr().out
    model, _ = load_checkpoint(run.best, "cpu")
    validation = read_training(run.best)["validation"]
    assert "words and word pairs added with weight" in said and model.config.counted_rows > 0
    assert validation["accuracy"] > max(record["accuracy"] for record in run.metrics("eval"))
    held_out = evaluate(str(run.best), DataSource(str(table), split="validation"))
    assert held_out["accuracy"] == pytest.approx(validation["accuracy"])
    # A best checkpoint that is lost is made again, counts and all.
    before = model.counts.table.clone()
    run.best.rename(tmp_path / "gone")
    resume(run.folder)
    again, _ = load_checkpoint(run.best, "cpu")
    torch.testing.assert_close(again.counts.table, before)


@pytest.mark.parametrize(
    ("dataset", "counts"), [("my.csv", True), ("sst2", True), ("ag_news", False), ("imdb", False), ("toy", False)]
)
def test_the_preset_for_tables_counts_words(dataset, counts):
    """AG News and IMDB keep what their published figures were measured with."""
    assert Arguments.resolve({"dataset": dataset}).train.word_counts == counts
    with pytest.raises(
        ValueError, match="--word_counts True is not allowed: it must be false without --task classification"
    ):
        Arguments.resolve({"dataset": dataset, "task": "mlm", "word_counts": True}).check()
