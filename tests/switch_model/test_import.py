"""Checkpoints of transformers' SwitchTransformers: the same logits, choices and texts here; and what can't be read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from switch_model import (
    CheckpointError,
    SwitchEncoderModel,
    SwitchForConditionalGeneration,
    SwitchForSequenceClassification,
    load_checkpoint,
)
from tests.support.their_models import VOCABULARY, routed, save_theirs, texts
from train.cli.main import main
from train.data.errors import DataError
from train.data.tokenizers import load_tokenizer
from train.runs.run import Run

SHAPES = {
    "some sparse, relu": {},
    "binding capacity": dict(expert_capacity=1),
    "gelu, biased routers, shards": dict(dense_act_fn="gelu", router_bias=True, shard="10KB", expert_capacity=2),
    "gated": dict(gated=True),
    "64 experts everywhere, untied": dict(
        num_experts=64, num_sparse_encoder_layers=4, num_sparse_decoder_layers=2, tie_word_embeddings=False
    ),
    "one expert": dict(num_experts=1),
    "more sparse layers than layers is none": dict(num_sparse_encoder_layers=5, num_sparse_decoder_layers=3),
    "none of one layer is one": dict(num_layers=1, num_decoder_layers=1, num_sparse_encoder_layers=0),
    "a longer decoder": dict(num_layers=2, num_decoder_layers=5, num_sparse_decoder_layers=2),
    "bfloat16 routers": dict(router_dtype="bfloat16", router_ignore_padding_tokens=True),
    "float16 routers, other positions": dict(
        router_dtype="float16", relative_attention_num_buckets=8, relative_attention_max_distance=9,
        layer_norm_epsilon=1e-3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_logits_and_the_same_choices(shape, tmp_path):
    theirs = save_theirs(tmp_path, **SHAPES[shape])
    ours = SwitchForConditionalGeneration.from_switch_transformers(tmp_path)
    inputs = texts()
    expected, decisions = routed(theirs, **inputs)
    with torch.no_grad():
        output = ours(**inputs, output_routing=True)
    assert expected.abs().max() > 0.1 and (output.logits - expected).abs().max() < 1e-5
    assert len(output.routing) == len(decisions)
    for record, (kept, gate) in zip(output.routing, decisions, strict=True):
        mask = record.mask
        assert torch.equal(record.kept[mask], kept.sum(-1)[mask] == 1), record.name
        assert torch.equal(record.expert[record.kept], kept.argmax(-1)[record.kept]), record.name
        torch.testing.assert_close(record.gate[mask], gate[mask].float(), atol=1e-5, rtol=1e-2)
    assert not output.routing or record.dropped.any() == ("binding" in shape or "biased" in shape)


@pytest.mark.parametrize("beams", [1, 4])
def test_the_same_text(beams, tmp_path):
    theirs = save_theirs(tmp_path)
    ours = SwitchForConditionalGeneration.from_switch_transformers(tmp_path)
    inputs = texts()
    inputs.pop("decoder_input_ids")
    for more in ({}, {"length_penalty": 0.6, "no_repeat_ngram_size": 2}):
        settings = dict(num_beams=beams, do_sample=False, max_new_tokens=12, **more)
        assert torch.equal(ours.generate(**inputs, **settings), theirs.generate(**inputs, **settings))


def test_a_decoder_longer_than_the_encoder_writes_what_the_library_would(tmp_path):
    """transformers' own generate fails here: it counts the encoder's layers."""
    theirs = save_theirs(tmp_path, **SHAPES["a longer decoder"])
    ours = SwitchForConditionalGeneration.from_switch_transformers(tmp_path)
    inputs = texts()
    answer = inputs.pop("decoder_input_ids")[:, :1]
    written = ours.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=-1)
    with torch.no_grad():
        for _ in range(8):
            logits = theirs(**inputs, decoder_input_ids=answer, use_cache=False).logits
            answer = torch.cat([answer, logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(written, answer)


def edited(folder: Path, name: str = "config.json", **changes) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(name)
    save_file(weights, folder / "model.safetensors")


def spoiled(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["shared.weight"][3, 4] = float("inf")
    save_file(weights, folder / "model.safetensors")


REFUSED = {
    "pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "can run code.*save it again"),
    "another model": (lambda f: edited(f, model_type="t5"), "model_type='t5'"),
    "another activation": (lambda f: edited(f, dense_act_fn="silu"), "dense_act_fn='silu' is not allowed"),
    "two ends": (lambda f: edited(f, eos_token_id=[1, 2]), "has several tokens"),
    "words for numbers": (lambda f: edited(f, num_layers="four"), "num_layers"),
    "no capacity": (lambda f: edited(f, expert_capacity=0), "expert_capacity=0"),
    "too deep": (lambda f: edited(f, num_layers=10**9), "above the limit"),
    "an expert more": (lambda f: edited(f, num_experts=5), "has shape .4, 16., but config.json asks for .5, 16."),
    "another width": (lambda f: edited(f, d_ff=25), "config.json asks for"),
    "a weight less": (lambda f: without(f, "decoder.final_layer_norm.weight"), "lacks decoder.final_layer_norm"),
    "infinite": (spoiled, "NaN or infinite"),
    "cut": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-4]),
        "its length does not fit its header",
    ),
    "a shard elsewhere": (
        lambda f: (
            (f / "model.safetensors").rename(f / "x"),
            (f / "model.safetensors.index.json").write_text('{"weight_map": {"shared.weight": "../x"}}'),
        ),
        "outside its folder",
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    save_theirs(folder)
    return folder


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_imported_is_refused_with_a_reason(case, saved, tmp_path):
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil, words = REFUSED[case]
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=f"(?s){words}"):
        SwitchForConditionalGeneration.from_switch_transformers(tmp_path)


def test_a_name_is_not_called_unknown_where_the_hub_was_not_asked():
    with pytest.raises(CheckpointError, match="not a folder, and the Hugging Face Hub could not be reached"):
        SwitchEncoderModel.from_switch_transformers("nobody/nothing")
    with pytest.raises(DataError, match="not a folder, and the Hugging Face Hub could not be reached"):
        load_tokenizer("nobody/nothing@v1", 8)


def test_the_command_writes_a_folder_that_opens(saved, tmp_path, capsys):
    inputs = texts()
    expected = SwitchForConditionalGeneration.from_switch_transformers(saved)(**inputs).logits
    assert main(["import", str(saved), "--output_dir", str(tmp_path / "whole")]) == 0
    assert "4 blocks in the encoder and 2 blocks in the decoder, 3 of them sparse" in capsys.readouterr().out
    model, tokenizer = load_checkpoint(tmp_path / "whole", "cpu")
    assert torch.equal(model(**inputs).logits, expected) and tokenizer("oil rose")["input_ids"] == [3, 5]
    assert model.generation_config.eos_token_id == 1 and model.generation_config.decoder_start_token_id == 0

    half = ["--dtype", "bfloat16", "--encoder_only"]
    assert main(["import", str(saved), "--output_dir", str(tmp_path / "half"), *half]) == 0
    model, _ = load_checkpoint(tmp_path / "half", "cpu")
    assert type(model) is SwitchEncoderModel
    weights = load_file(tmp_path / "half" / "model.safetensors")
    assert all(weight.dtype == torch.bfloat16 for weight in weights.values())
    # A half-precision source stays as small, unless it is asked to grow.
    save_file({name: weight.half() for name, weight in load_file(saved / "model.safetensors").items()}, tmp_path / "h")
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "h").rename(tmp_path / "model.safetensors")
    assert SwitchEncoderModel.from_switch_transformers(tmp_path, dtype=None).dtype == torch.float16
    assert SwitchEncoderModel.from_switch_transformers(tmp_path).dtype == torch.float32

    (tmp_path / "tokenizer.json").rename(tmp_path / "spiece.model")
    assert main(["import", str(tmp_path), "--output_dir", str(tmp_path / "none")]) == 2
    assert "spiece.model" in capsys.readouterr().err and not (tmp_path / "none").exists()
    # A tokenizer that lies elsewhere.
    (tmp_path / "spiece.model").unlink()
    command = ["import", str(tmp_path), "--output_dir", str(tmp_path / "named")]
    assert main(command) == 2 and "--tokenizer NAME" in capsys.readouterr().err
    assert main([*command, "--tokenizer", str(tmp_path / "words")]) == 2 and not (tmp_path / "named").exists()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>").save_pretrained(
        tmp_path / "words"
    )
    assert main([*command, "--tokenizer", str(tmp_path / "words")]) == 0
    _, named = load_checkpoint(tmp_path / "named", "cpu")
    assert named("oil rose")["input_ids"] == [3, 5]


def test_an_imported_encoder_is_tuned_to_classify(saved, tmp_path):
    direct = SwitchForSequenceClassification.from_switch_transformers(saved)
    assert all(weight.isfinite().all() for weight in direct.parameters()) and direct.classifier.weight.std() > 0
    rows = ["text,label", *["oil rose,business", "team won,sports"] * 8]
    (tmp_path / "my.csv").write_text("\n".join(rows))
    source, run = tmp_path / "imported", tmp_path / "run"
    assert main(["import", str(saved), "--output_dir", str(source)]) == 0
    command = ["--dataset", str(tmp_path / "my.csv"), "--init_from", str(source), "--output_dir", str(run)]
    # So small a step that the weights stay: what was copied is seen at the end.
    assert main([*command, "--epochs", "1", "--batch_size", "4", "--lr", "1e-12", "--max_steps", "2"]) == 0
    tuned, tokenizer = load_checkpoint(run, "cpu")
    assert isinstance(tuned, SwitchForSequenceClassification) and tuned.config.labels == ["business", "sports"]
    # The table is larger than the vocabulary, as in google's checkpoints.
    assert tuned.config.vocab_size == VOCABULARY > len(tokenizer)
    for name, weight in SwitchEncoderModel.from_switch_transformers(saved).state_dict().items():
        torch.testing.assert_close(tuned.state_dict()[name], weight, msg=name)
    learned = Run.open(run).metrics("eval")
    assert learned and learned[-1]["loss"] > 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of a process from /proc")
def test_importing_and_saving_take_little_more_memory_than_the_model(tmp_path):
    for name, words in (("small", 1_000), ("large", 1_000_000)):
        save_theirs(tmp_path / name, d_model=16, d_ff=16, vocab_size=words, num_experts=2)
    size = (tmp_path / "large" / "model.safetensors").stat().st_size
    # A small one first: pages of libraries that are touched for the first time are no memory of the model's. Then the
    # peak is counted anew (5, in proc(5)).
    code = f"""
import torch
from train.weights.switch_transformers import import_checkpoint
torch.set_num_threads(1)
def memory(kind):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(kind))
import_checkpoint({str(tmp_path / "small")!r}, {str(tmp_path / "ours")!r})
open("/proc/self/clear_refs", "w").write("5")
bare = memory("VmRSS")
import_checkpoint({str(tmp_path / "large")!r}, {str(tmp_path / "ours")!r})
print(memory("VmHWM") - bare)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert size < int(done.stdout.split()[-1]) < 1.3 * size
