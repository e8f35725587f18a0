"""Tasks that write or guess tokens: what a batch asks for, streams on disk, runs from data to text and figures."""

import csv
import json
import math
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from switch_model import MaskFiller, SwitchConfig, SwitchForCausalLM, load_checkpoint
from switch_model.inference.sentinels import restored, with_sentinels
from switch_model.inference.text_generator import TextGenerator
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.data.columns import choose_pair
from train.data.errors import DataError
from train.data.loading import load_split
from train.data.packing import Blocks, held_out_every, packed
from train.data.pairs import load_pairs
from train.data.source import DataSource
from train.data.tokenizers import sentinel_ids, train_byte_tokenizer, train_unigram_tokenizer
from train.runs.run import Run
from train.tasks.collators import SpanCorruptionCollator, cut_spans
from train.tasks.metrics import metrics_of_texts
from train.tasks.registry import TASKS
from train.tasks.rouge import common_subsequence, rouge, words

TEXTS = ["the cat sat on the mat and slept", "a dog ran over the hill to the old house by the sea"] * 20
SMALL = ["--d_model", "32", "--num_layers", "1", "--num_heads", "2", "--preset", "none", "--optimizer", "adamw"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWITCH_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def unigram():
    return train_unigram_tokenizer(TEXTS, vocab_size=160, max_length=32)


@pytest.fixture
def pairs(tmp_path):
    """A language whose words are those of another in capitals."""
    random, words = np.random.default_rng(0), ["red", "blue", "old", "big", "cat", "dog", "sea", "hill"]
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["english", "loud"])
        for _ in range(320):
            text = " ".join(random.choice(words, size=random.integers(2, 5)))
            writer.writerow([text, text.upper()])
    return path


def test_every_preset_suits_a_run_of_a_few_steps():
    # A warm-up counted in steps would be longer than a run on few rows, which is refused.
    for task in TASKS:
        for name in ("tiny", "small", "base"):
            assert Arguments.resolve({"dataset": "my.csv", "task": task, "preset": name}).train.warmup < 1, (task, name)


def test_the_same_texts_give_the_same_tokenizer():
    # Characters that stand once would take their scores in the order of a hash table.
    texts = [*TEXTS, "αβγδεζηθικλμνξοπρστυφχψω", "אבגדהוזחטיכלמנסעפצקרשת"]
    one, other = (train_unigram_tokenizer(texts, 260, 32).backend_tokenizer.to_str() for _ in range(2))
    assert one == other


def test_spans_and_what_is_left_make_up_the_text_and_hide_the_share_asked_for(unigram):
    collator = SpanCorruptionCollator(unigram, probability=0.15, seed=3)
    sentinels = sentinel_ids(unigram)
    hidden = total = 0
    for row, text in enumerate(TEXTS):
        ids = unigram(text)["input_ids"]
        batch = collator([{"input_ids": ids, "row": row}])
        left, asked = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        assert left[-1] == asked[-1] == unigram.eos_token_id
        # Put each span back where its sentinel stands.
        spans, own = {}, None
        for token in asked[:-1]:
            if token in sentinels:
                own = spans.setdefault(token, [])
            else:
                own.append(token)
        assert list(spans) == sentinels[: len(spans)] and all(spans.values())
        assert [part for token in left[:-1] for part in spans.get(token, [token])] == ids[:-1]
        hidden, total = hidden + sum(map(len, spans.values())), total + len(ids) - 1
    assert abs(hidden / total - 0.15) < 0.03


def test_gaps_become_sentinels_and_their_spans_come_back(unigram):
    text = with_sentinels("the ___ sat on ____ and ___", unigram)
    assert text == "the <extra_id_0> sat on <extra_id_1> and <extra_id_2>"
    assert with_sentinels(text, unigram) == text
    # In any order, and one gap without an answer.
    written = unigram("<extra_id_1>the old mat<extra_id_0>cat")["input_ids"]
    assert restored(text, [unigram.pad_token_id, *written], unigram) == "the cat sat on the old mat and ___"
    assert restored("no gap", written, unigram) is None


def test_a_model_of_span_corruption_answers_with_the_text_whole_and_its_sentinels_shown(tmp_path, capsys):
    path, run = tmp_path / "texts.csv", tmp_path / "run"
    path.write_text("text\n" + "\n".join(TEXTS))
    flags = [
        *SMALL,
        "--lr",
        "1e-2",
        "--seq_len",
        "32",
        "--vocab_size",
        "160",
        "--batch_size",
        "8",
        "--total_iters",
        "30",
    ]
    assert main(["--task", "span_corruption", "--dataset", str(path), *flags, "--output_dir", str(run)]) == 0
    capsys.readouterr()
    result = TextGenerator.from_checkpoint(run, "cpu")("the ___ sat on the mat", max_new_tokens=12)
    assert result.text.startswith("the ") and result.text.endswith(" sat on the mat")
    assert "<extra_id_0>" in result.source.tokens and "<extra_id_0>" in result.answer.tokens
    command = ["predict", "--checkpoint", str(run), "--max_new_tokens", "12", "the ___ sat on the mat"]
    assert main(command) == 0
    assert capsys.readouterr().out.split() == result.text.split()


def test_spans_follow_from_seed_epoch_and_row_alone(unigram):
    def drawn(seed, epoch, row):
        collator = SpanCorruptionCollator(unigram, probability=0.3, seed=seed)
        collator.epoch = epoch
        return collator([{"input_ids": unigram(TEXTS[1])["input_ids"], "row": row}])["input_ids"].tolist()

    assert drawn(0, 0, 0) == drawn(0, 0, 0)
    assert len({str(drawn(seed, epoch, row)) for seed in (0, 1) for epoch in (0, 1) for row in (0, 1)}) > 5


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 200])
def test_every_length_has_a_span_of_at_least_one_token(tokens):
    for seed in range(20):
        cuts = cut_spans(tokens, 0.15, np.random.default_rng(seed), most=100)
        cut = [index for _, span in cuts for index in range(tokens)[span]]
        assert 1 <= len(cut) <= max(1, tokens - 1) and all(span.stop > span.start for _, span in cuts)


def test_a_stream_comes_back_from_disk_and_is_made_once():
    tokenizer = train_byte_tokenizer(TEXTS, vocab_size=300, max_length=32)
    assert tokenizer.decode(tokenizer("Crème, “brûlée”!  ok")["input_ids"]) == "Crème, “brûlée”!  ok"
    files, info = packed({"name": "x"}, tokenizer, {"train": iter(TEXTS)})
    blocks = Blocks(files["train"], info["dtype"], 16)
    assert len(blocks) == info["train"]["tokens"] // 16 and info["train"]["characters"] == sum(map(len, TEXTS))
    ids = [token for row in range(len(blocks)) for token in blocks[row]["input_ids"]]
    assert tokenizer.decode(ids).split(tokenizer.eos_token)[:3] == TEXTS[:3]

    def never():
        raise AssertionError("read again")
        yield

    again, _ = packed({"name": "x"}, tokenizer, {"train": never()})
    assert again == files
    with pytest.raises(AssertionError):
        packed({"name": "y"}, tokenizer, {"train": never()})
    assert held_out_every(0.05) == 20


def test_columns_of_a_pair_are_found_or_asked_for(pairs):
    assert choose_pair(DataSource("x"), ["id", "tgt", "src"]) == ("src", "tgt")
    assert choose_pair(DataSource("x"), ["english", "loud"]) == ("english", "loud")
    assert choose_pair(DataSource("x", text_column="c", target_column="a"), ["a", "b", "c"]) == ("c", "a")
    with pytest.raises(DataError, match="--target_column"):
        choose_pair(DataSource("x"), ["a", "b", "c"])
    with pytest.raises(DataError, match="no column 'd'"):
        choose_pair(DataSource("x", text_column="d"), ["a", "b"])
    row = load_pairs(DataSource(str(pairs)))[0]
    assert row["target"] == row["text"].upper()


def test_metrics_of_texts_by_hand():
    same = metrics_of_texts(["the cat sat on the mat"], ["the cat sat on the mat"])
    assert same["bleu"] == pytest.approx(100) and same["chrf"] == pytest.approx(100)
    assert "tok:13a" in same["bleu_signature"]
    assert metrics_of_texts(["dogs"], ["the cat sat on the mat"])["bleu"] < 1


def test_rouge_by_hand():
    # Lin (2004), section 3.1: of two answers with the same words in pairs, the one that keeps the order is better.
    reference, kept, turned = "police killed the gunman", "Police kill the gunman.", "the gunman kill police"
    assert rouge([kept], [reference]) == pytest.approx({"rouge1": 75, "rouge2": 100 / 3, "rougeL": 75})
    assert rouge([turned], [reference]) == pytest.approx({"rouge1": 75, "rouge2": 100 / 3, "rougeL": 50})
    # Each word counts as often as both have it; lengths differ; a mean over pairs, of which an empty one has nothing.
    found = rouge(["the the cat", ""], ["the cat sat on the mat", "a"])
    assert found == pytest.approx({"rouge1": 50 * 6 / 9, "rouge2": 50 * 2 / 7, "rougeL": 50 * 4 / 9})
    assert words("दिल्ली में, Ünder_3") == ["दिल्ली", "में", "ünder", "3"]


@pytest.mark.parametrize("seed", range(3))
def test_the_common_subsequence_is_that_of_the_usual_table(seed):
    draw = random.Random(seed)
    first, second = ([draw.choice("abcd") for _ in range(draw.randrange(1, 90))] for _ in range(2))
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            longer = max(table[row][column + 1], table[row + 1][column])
            table[row + 1][column + 1] = table[row][column] + 1 if one == other else longer
    assert common_subsequence(first, second) == table[-1][-1]


def test_a_translation_is_learned_measured_and_written(pairs, tmp_path, capsys):
    run = tmp_path / "run"
    flags = [*SMALL, "--lr", "4e-3", "--seq_len", "16", "--vocab_size", "200", "--dropout", "0", "--batch_size", "16"]
    flags += ["--expert_dropout", "0", "--label_smoothing", "0", "--capacity_factor", "inf"]
    flags += ["--total_iters", "300", "--eval_check", "150"]
    flags += ["--metrics", "rouge"]
    flags += ["--position", "sinusoidal", "--d_model", "64"]  # Finds the word that is next soonest.
    assert main(["--task", "translation", "--dataset", str(pairs), *flags, "--output_dir", str(run)]) == 0
    records = Run(run).metrics("eval")
    assert [record["step"] for record in records] == [150, 300] and records[-1]["accuracy"] > 0.8
    assert Run(run).metrics("samples")[-1]["samples"][0]["reference"].isupper()
    card = (run / "best" / "README.md").read_text()
    assert "BLEU" in card and f"ROUGE-L {records[-1]['rougeL']:.1f}" in card
    capsys.readouterr()

    assert (
        main(["evaluate", "--checkpoint", str(run), "--dataset", str(pairs), "--save_text", str(tmp_path / "t")]) == 0
    )
    metrics = json.loads(capsys.readouterr().out)
    written = (tmp_path / "t").read_text().splitlines()
    references = load_pairs(DataSource(str(pairs)))["target"][:]
    assert metrics["bleu"] == pytest.approx(metrics_of_texts(written, references)["bleu"])
    assert {layer["layer"] for layer in metrics["routing"]} == {"encoder.0", "decoder.0"}

    table = tmp_path / "two.csv"
    table.write_text('text\nold cat\n""\nbig sea\n')
    assert main(["predict", "--checkpoint", str(run), "--file", str(table), "--num_beams", "2"]) == 0
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [line["text"] for line in lines] == ["old cat", "", "big sea"] and lines[0]["written"].isupper()
    assert not lines[1]["written"] and lines[2]["written"].isupper()


def test_a_causal_model_is_measured_as_its_own_loss_says(tmp_path, capsys):
    run, path = tmp_path / "run", tmp_path / "texts.csv"
    path.write_text("text\n" + "\n".join(TEXTS))
    flags = [*SMALL, "--lr", "1e-2", "--seq_len", "16", "--vocab_size", "300", "--batch_size", "8", "--epochs", "2"]
    assert main(["--task", "clm", "--dataset", str(path), *flags, "--output_dir", str(run)]) == 0
    record = Run(run).metrics("eval")[-1]
    assert record["perplexity"] < 300 and record["bits_per_character"] > 0
    capsys.readouterr()

    assert main(["evaluate", "--checkpoint", str(run), "--dataset", str(path)]) == 0
    metrics = json.loads(capsys.readouterr().out)
    model, tokenizer = load_checkpoint(run, "cpu")
    texts = load_split(DataSource(str(path)), labelled=False)[0]["text"][:]
    stream = [token for text in texts for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    nats, asked = 0.0, 0
    for start in range(0, len(stream), 16):
        ids = torch.tensor([stream[start : start + 16]])
        with torch.inference_mode():
            log_probs = model(ids).logits.log_softmax(-1)
        for place in range(ids.shape[1] - 1):
            nats, asked = nats - float(log_probs[0, place, ids[0, place + 1]]), asked + 1
    assert metrics["perplexity"] == pytest.approx(math.exp(nats / asked), rel=1e-4)
    bits = nats / asked / math.log(2) * len(stream) / sum(map(len, texts))
    assert metrics["bits_per_character"] == pytest.approx(bits, rel=1e-4)

    # A blank text begins one of its own, and takes no answer from the others.
    blank = ["predict", "--checkpoint", str(run), "--max_new_tokens", "8", "the cat", "", " "]
    assert main(blank) == 0
    written = capsys.readouterr().out.splitlines()
    assert len(written) == 3 and all(map(str.strip, written))


def test_blanks_are_filled_from_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--dataset", "toy", "--num_samples", "40", "--total_iters", "2", "--vocab_size", "200", *SMALL]
    assert main([*flags, "--task", "mlm", "--output_dir", str(run)]) == 0
    assert f"Explore it: python app.py --checkpoint {run / 'best'}" in capsys.readouterr().out
    filler = MaskFiller.from_checkpoint(run, "cpu")
    text = "w1 ___ w2 ___"
    expected = filler(text)
    words, share = expected.blanks[1].candidates[0]
    ask = ["predict", "--checkpoint", str(run)]
    assert main([*ask, text, "no gap", "--trace_file", str(tmp_path / "trace.json")]) == 0
    traced = json.loads((tmp_path / "trace.json").read_text())
    assert [len(record["expert"][0]) for record in traced[0]["routing"]] == [len(expected.answer.tokens)]
    assert [one["token"] for one in traced[0]["attribution"]] == [blank.token for blank in expected.blanks]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == expected.text and lines[2].startswith(f"  blank 2: {words} {share:.3f}, ")
    assert "The text has no blank" in lines[3]
    table = tmp_path / "two.csv"
    table.write_text(f"text\n{text}\nno gap\n")
    assert main([*ask, "--file", str(table)]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert rows[0]["filled"] == expected.text and f"{words} {share:.3f}" in rows[0]["candidates"].split(" | ")[1]
    assert rows[1] == {"text": "no gap", "filled": "", "candidates": ""}
    assert main([*ask, "--top_k", "0", text]) == 2 and "--top_k can't be used" in capsys.readouterr().err


def test_any_task_starts_from_any_other(tmp_path):
    common = ["--dataset", "toy", "--num_samples", "40", "--total_iters", "2", "--vocab_size", "200", *SMALL]
    previous, kept = [], None
    for task in ("span_corruption", "classification", "clm", "mlm", "span_corruption"):
        folder = tmp_path / f"{len(previous)}-{task}"
        start = ["--init_from", str(previous[-1])] if previous else []
        own = [flag for flag in common if start == [] or flag not in ("--vocab_size", "200")]
        assert main([*own, "--task", task, *start, "--output_dir", str(folder)]) == 0
        previous.append(folder / "best")
        weights = load_file(folder / "best" / "model.safetensors")
        if kept is not None:
            rows = min(len(kept), len(weights["shared.weight"]))
            # Two steps of training away from where it started, not from a fresh table.
            assert (
                torch.corrcoef(torch.stack([kept[:rows].flatten(), weights["shared.weight"][:rows].flatten()]))[0, 1]
                > 0.5
            )
        kept = weights["shared.weight"]


@pytest.mark.parametrize(("tokens", "steps"), [("100000", 1), ("1", 20)])
def test_tokens_per_step_become_accumulated_batches(tokens, steps, tmp_path):
    flags = ["--num_samples", "80", "--epochs", "1", "--batch_size", "4", "--total_batch_size", tokens, *SMALL]
    assert main([*flags, "--output_dir", str(tmp_path / "run")]) == 0
    assert Run(tmp_path / "run").metrics("eval")[-1]["step"] == steps


def test_a_fused_loss_takes_the_place_of_logits_in_training_alone(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    shape = dict(vocab_size=30, d_model=16, d_kv=8, d_ff=16, num_heads=2, num_layers=1, num_experts=2, dropout_rate=0.0)
    model = SwitchForCausalLM(SwitchConfig(**shape, expert_dropout=0.0)).train()
    ids = torch.randint(2, 30, (2, 7))
    plain = model(ids, labels=ids)
    model.fused_loss = lambda weight, hidden, labels: torch.nn.functional.cross_entropy(hidden @ weight.T, labels)
    fused = model(ids, labels=ids)
    assert fused.logits is None and fused.loss.item() == pytest.approx(plain.loss.item(), rel=1e-6)
    assert model.eval()(ids, labels=ids).logits is not None
    assert main(["--task", "clm", "--liger", "true", "--device", "cpu", "--output_dir", str(tmp_path / "run")]) == 2
    assert "--liger needs CUDA" in capsys.readouterr().err
