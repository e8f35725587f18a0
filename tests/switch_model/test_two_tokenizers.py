"""A translator with a tokenizer a side: learned by the command, kept in the checkpoint, and each used on its side."""

import csv
import io
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from switch_model import CheckpointError, SwitchConfig, SwitchForCausalLM, load_checkpoint, save_checkpoint
from switch_model.inference.decoding import Decoding
from switch_model.inference.text_generator import TextGenerator
from switch_model.storage.tokenizer_io import target_of
from tests.support.heads import make, tokens
from train.cli.main import main
from train.data.pairs import load_pairs
from train.data.source import DataSource
from train.data.tokenizers import load_tokenizer
from train.release.shared_copy import shared_copy
from train.runs.run import Run
from train.tasks.generation import translate
from train.tasks.metrics import metrics_of_texts
from ui.catalog.models import ModelShelf
from ui.catalog.sandbox import examine
from ui.models.page import model_page

WORDS = ["red", "blue", "old", "big", "cat", "dog", "sea", "hill"]
SMALL = ["--num_layers", "1", "--num_heads", "2", "--preset", "none", "--optimizer", "adamw", "--lr", "4e-3"]
SMALL += ["--seq_len", "16", "--dropout", "0", "--expert_dropout", "0", "--label_smoothing", "0", "--batch_size", "16"]
SMALL += ["--capacity_factor", "inf", "--position", "sinusoidal", "--d_model", "64", "--task", "translation"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A language whose words are those of another in capitals: no letter is in both."""
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "pairs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["quiet", "loud"])
        for _ in range(320):
            text = " ".join(random.choice(WORDS, size=random.integers(2, 5)))
            writer.writerow([text, f"{text.upper()} {'!' * len(text.split())}"])
    return path


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    flags = [*SMALL, "--vocab_size", "150", "--target_tokenizer", "own", "--total_iters", "160", "--eval_check", "160"]
    assert main(["--dataset", str(pairs), *flags, "--output_dir", str(folder)]) == 0
    return folder


def letters(tokenizer):
    special = set(tokenizer.all_special_tokens)
    special |= {token for token in tokenizer.get_vocab() if token.startswith("<extra_id_")}
    return set("".join(set(tokenizer.get_vocab()) - special))


def test_each_side_has_its_own_and_the_translation_is_learned_measured_and_written(run, pairs, tmp_path, capsys):
    model, tokenizer = load_checkpoint(run, "cpu")
    reader, writer = tokenizer, target_of(tokenizer)
    assert {"c", "C"} & letters(reader) == {"c"} and {"c", "C"} & letters(writer) == {"C"}
    config = model.config
    assert (config.vocab_size, config.decoder_vocab_size) == (len(reader), len(writer)) and len(reader) != len(writer)
    assert model.get_output_embeddings().weight.shape[0] == len(writer) and config.pad_token_id == writer.pad_token_id
    assert Run(run).metrics("eval")[-1]["accuracy"] > 0.6
    card = (run / "best" / "README.md").read_text()
    assert "--target_tokenizer own" in card and f"{len(writer):,} for the output" in card

    capsys.readouterr()
    flags = ["--checkpoint", str(run), "--dataset", str(pairs), "--save_text", str(tmp_path / "t")]
    assert main(["evaluate", *flags]) == 0
    metrics, rows = json.loads(capsys.readouterr().out), load_pairs(DataSource(str(pairs)))
    written = (tmp_path / "t").read_text().splitlines()
    assert metrics["bleu"] == pytest.approx(metrics_of_texts(written, rows["target"][:])["bleu"])
    assert {layer["layer"] for layer in metrics["routing"]} == {"encoder.0", "decoder.0"}
    assert main(["predict", "--checkpoint", str(run), "--num_beams", "2", "old cat"]) == 0
    assert capsys.readouterr().out.strip().isupper()


def test_text_and_next_tokens_come_from_the_tokenizer_that_writes(run):
    generator = TextGenerator.from_checkpoint(run, "cpu")
    result = generator("old cat", max_new_tokens=12)
    assert result.text.strip() == translate(generator.model, generator.tokenizer, ["old cat"], max_new_tokens=12)[0]
    assert result.source.tokens[-1] == "</s>" and "cat" in "".join(result.source.tokens)
    assert not any(result.source.unknown) and not any(result.answer.unknown)
    assert "".join(result.answer.tokens[1:]).removesuffix("</s>").strip() == result.text.strip()
    likeliest = [row[0][0].strip() for row in result.next_tokens]
    assert any(word.isupper() for word in likeliest) and not any(word.islower() for word in likeliest if word != "</s>")
    *_, last = generator.stream("old cat", Decoding(max_new_tokens=12))
    assert last.strip() == result.text.strip()


def test_both_tokenizers_come_back_from_folder_zip_loose_files_and_what_is_published(run, tmp_path):
    model, tokenizer = load_checkpoint(run, "cpu")
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", run, "best")
    again = save_checkpoint(model, tokenizer, tmp_path / "again")
    published = tmp_path / "published"
    shared_copy(run / "best", published)
    for folder in ("own", "loose"):
        (tmp_path / folder).mkdir()
    examine([tmp_path / "zipped.zip"], tmp_path / "own")
    examine(list((run / "best").iterdir()), tmp_path / "loose")
    for source in (archive, again, published, tmp_path / "own", tmp_path / "loose"):
        other, own = load_checkpoint(source, "cpu")
        assert torch.equal(other.decoder_embedding.weight, model.decoder_embedding.weight)
        assert target_of(own).get_vocab() == target_of(tokenizer).get_vocab() != own.get_vocab()
    shelf = ModelShelf({"translator": run}, "cpu")
    assert f"{len(target_of(tokenizer)):,} tokens" in model_page(shelf, "translator").facts


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def larger(path):
    model = json.loads(path.read_text())["model"]
    return model | {"vocab": [*model["vocab"], *([f"x{index}", -9.0] for index in range(500))]}


REGEX = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
HOSTILE = {
    "missing": (lambda f: (f / "target_tokenizer.json").unlink(), "lacks target_tokenizer.json"),
    "no JSON": (lambda f: (f / "target_tokenizer.json").write_text("[["), "target_tokenizer.json is not valid JSON"),
    "regex": (lambda f: edit(f / "target_tokenizer.json", normalizer=REGEX), "target_tokenizer.json: .*regular expr"),
    "other kind": (lambda f: edit(f / "target_tokenizer.json", pre_tokenizer={"type": "Split"}), "not accepted"),
    "other model's": (
        lambda f: edit(f / "target_tokenizer.json", model=larger(f / "target_tokenizer.json")),
        "target_tokenizer.json has .*decoder_vocab_size is",
    ),
    "two in one table": (lambda f: edit(f / "config.json", share_embeddings=True), "two vocabularies"),
    "ids beyond": (lambda f: edit(f / "config.json", eos_token_id=9_999), "below decoder_vocab_size"),
    "huge": (lambda f: edit(f / "config.json", decoder_vocab_size=10**9), "above the limit of 10,000,000"),
    "many weights": (
        lambda f: edit(f / "config.json", decoder_vocab_size=10**7, d_model=10**4),
        "describes .* parameters",
    ),
    "one stack": (
        lambda f: edit(f / "config.json", architectures=["SwitchForMaskedLM"]),
        "decoder_vocab_size=.* one vocabulary",
    ),
    "no number": (lambda f: edit(f / "config.json", decoder_vocab_size="many"), "decoder_vocab_size='many'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_second_tokenizer_is_trusted_no_more_than_the_first(run, tmp_path, case):
    folder = shutil.copytree(run / "best", tmp_path / "best")
    spoil, words = HOSTILE[case]
    spoil(folder)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(folder, "cpu")


def test_a_zip_with_a_second_tokenizer_of_a_strangers_is_refused_too(run, tmp_path):
    folder = shutil.copytree(run / "best", tmp_path / "best")
    edit(folder / "target_tokenizer.json", normalizer=REGEX)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(CheckpointError, match="regular expression"):
        examine([tmp_path / "bad.zip"], tmp_path / "scratch")


@pytest.mark.parametrize("tied", [True, False])
def test_tables_are_resized_together_or_not_at_all(tied, tmp_path):
    apart = make("conditional", share_embeddings=False, tie_word_embeddings=tied)
    before = apart.decoder_embedding.weight.clone()
    apart.resize_token_embeddings(57)
    assert len(apart.shared.weight) == len(apart.decoder_embedding.weight) == apart.config.vocab_size == 57
    assert torch.equal(apart.decoder_embedding.weight[:50], before)
    ids = torch.tensor([[55, 3, 56]])
    assert apart(ids, decoder_input_ids=ids).logits.shape == (1, 3, 57)

    two = make("conditional", share_embeddings=False, tie_word_embeddings=tied, decoder_vocab_size=30)
    assert two(tokens(2, 5), decoder_input_ids=torch.tensor([[0, 29]] * 2)).logits.shape == (2, 2, 30)
    assert two.resize_token_embeddings() is two.shared
    with pytest.raises(ValueError, match="input and an output vocabulary"):
        two.resize_token_embeddings(60)
    with pytest.raises(ValueError, match="one vocabulary"):
        SwitchForCausalLM(SwitchConfig(decoder_vocab_size=30, share_embeddings=False))


def test_a_word_that_has_the_number_of_the_others_padding_is_read():
    model = make("conditional", share_embeddings=False, decoder_vocab_size=30, pad_token_id=4)
    ids = torch.tensor([[7, 4, 4, 9]])
    asked = dict(max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True)
    bare, masked = model.generate(ids, **asked), model.generate(ids, attention_mask=torch.ones_like(ids), **asked)
    torch.testing.assert_close(bare.logits[0], masked.logits[0])


def test_two_tokenizers_from_elsewhere_keep_their_own_special_tokens(pairs, tmp_path):
    def save(name, words, special):
        backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    reader = save("quiet", ["<pad>", "</s>", "<unk>", *WORDS], special)
    loud = [*map(str.upper, WORDS), "!", "!!", "!!!"]
    writer = save("loud", [*loud, "<unk>", "<pad>", "</s>"], special)
    flags = ["--tokenizer", reader, "--target_tokenizer", writer, "--total_iters", "2", "--output_dir"]
    assert main(["--dataset", str(pairs), *SMALL, *flags, str(tmp_path / "run")]) == 0
    model, tokenizer = load_checkpoint(tmp_path / "run", "cpu")
    assert tokenizer("cat dog")["input_ids"] == [7, 8, 1] and target_of(tokenizer)("CAT")["input_ids"] == [4, 13]
    config = model.config
    assert (config.vocab_size, config.decoder_vocab_size, config.pad_token_id, config.eos_token_id) == (11, 14, 12, 13)
    assert config.decoder_start_token_id == 12
    training = json.loads((tmp_path / "run" / "best" / "training.json").read_text())
    assert training["arguments"]["target_tokenizer"] == "loud"


def test_stopped_and_resumed_it_goes_on_with_both(run, pairs, tmp_path, stopping_at_saves):

    flags = ["--dataset", str(pairs), *SMALL, "--tokenizer", str(run / "tokenizer")]
    flags += [
        "--target_tokenizer",
        str(run / "target_tokenizer"),
        "--total_iters",
        "4",
        "--eval_check",
        "2",
        "--eval_iters",
        "1",
    ]
    assert main([*flags, "--output_dir", str(tmp_path / "whole")]) == 0
    with stopping_at_saves():
        assert main([*flags, "--output_dir", str(tmp_path / "parts")]) == 130
    assert main(["resume", str(tmp_path / "parts")]) == 0
    whole, parts = (
        load_file(tmp_path / name / "checkpoints" / "checkpoint-4" / "model.safetensors") for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize("task", ["translation", "mlm", "clm", "span_corruption"])
def test_other_tasks_start_from_it_with_the_tokens_that_are_theirs(task, run, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("SWITCH_CACHE_DIR", str(tmp_path / "cache"))
    source, both = load_checkpoint(run, "cpu")
    flags = ["--dataset", str(pairs), *SMALL[:-2], "--lr", "1e-6", "--task", task, "--total_iters", "1"]
    columns = ["--target_column", "loud"] if task == "translation" else []
    flags += [*columns, "--text_column", "loud" if task == "clm" else "quiet", "--init_from", str(run)]
    assert main([*flags, "--output_dir", str(tmp_path / "next")]) == 0
    model, tokenizer = load_checkpoint(tmp_path / "next", "cpu")
    kept, rows = (source.shared, len(both)) if task != "clm" else (source.decoder_embedding, len(target_of(both)))
    torch.testing.assert_close(model.shared.weight[:rows], kept.weight, atol=1e-4, rtol=0)
    own = target_of(both) if task == "clm" else both
    assert own.get_vocab().items() <= tokenizer.get_vocab().items()
    if task == "translation":
        torch.testing.assert_close(model.decoder_embedding.weight, source.decoder_embedding.weight, atol=1e-4, rtol=0)
        assert target_of(tokenizer).get_vocab() == target_of(both).get_vocab()
    else:
        assert model.config.decoder_vocab_size is None and target_of(tokenizer) is tokenizer
        assert not (tmp_path / "next" / "best" / "target_tokenizer.json").exists()


def test_what_does_not_go_together_is_refused_in_words(run, pairs, tmp_path, capsys):
    out = ["--output_dir", str(tmp_path / "no")]
    assert main(["--task", "clm", "--target_tokenizer", "own", *out]) == 2
    assert "--target_tokenizer own is not allowed" in capsys.readouterr().err
    flags = ["--dataset", str(pairs), *SMALL, "--init_from", str(run), "--target_tokenizer", "own"]
    assert main([*flags, *out]) == 2
    assert "--target_tokenizer can't be used with --init_from" in capsys.readouterr().err
    assert main(["--dataset", str(pairs), *SMALL, "--target_tokenizer", str(tmp_path / "none"), *out]) == 2
    assert "There is no tokenizer at" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def sentencepiece_folder(folder, texts):
    """A tokenizer as ai4bharat/IndicBARTSS has it: an AlbertTokenizer with a SentencePiece model, no tokenizer.json."""
    folder.mkdir()
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        user_defined_symbols=["[CLS]", "[SEP]", "[MASK]"],
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(written.getvalue())
    settings = {"tokenizer_class": "AlbertTokenizer", "do_lower_case": False, "keep_accents": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_sentencepiece_models_alone_serve_either_side_and_are_kept_as_tokenizer_json(pairs, tmp_path, capsys):
    rows = load_pairs(DataSource(str(pairs)))
    reads = sentencepiece_folder(tmp_path / "reads", rows["text"][:])
    writes = sentencepiece_folder(tmp_path / "writes", rows["target"][:])
    own = ["--tokenizer", str(reads), "--target_tokenizer", str(writes), "--total_iters", "4"]
    assert main(["--dataset", str(pairs), *SMALL, *own, "--output_dir", str(tmp_path / "run")]) == 0
    # Whoever opens the checkpoint needs no sentencepiece.
    assert not list((tmp_path / "run" / "best").glob("*.model"))
    _, tokenizer = load_checkpoint(tmp_path / "run", "cpu")
    assert {"c", "C"} & letters(tokenizer) == {"c"} and {"c", "C"} & letters(target_of(tokenizer)) == {"C"}
    assert tokenizer("old cat")["input_ids"] == load_tokenizer(str(reads), 16)("old cat")["input_ids"]
    assert main(["predict", "--checkpoint", str(tmp_path / "run"), "old cat"]) == 0

    capsys.readouterr()
    (reads / "spiece.model").write_bytes(b"no model")
    assert main(["--dataset", str(pairs), *SMALL, *own, "--output_dir", str(tmp_path / "again")]) == 2
    assert "exists, but can't be read" in capsys.readouterr().err
