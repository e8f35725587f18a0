"""Exported folders answer as their model does, without torch, and what can't be exported is refused."""

import copy
import json
import os
import runpy
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from switch_model import CheckpointError, MaskFiller, Predictor, TextGenerator
from switch_model.export import onnx_graph
from switch_model.export.int8 import quantize
from switch_model.export.onnx_graph import onnx_runner
from switch_model.export.parity import compare, random_batches
from switch_model.inference.batching import padded
from switch_model.inference.decoding import Decoding
from tests.support.pages import (
    WORDS,
    save_tiny_checkpoint,
    save_tiny_mask_filler,
    save_tiny_storyteller,
    save_tiny_translator,
)
from train.cli.main import main
from train.release.export import INSTEAD
from train.release.formats.tensorrt_folder import check_operators

# A model's own CLS token takes a position, and stands before the tokens in the records.
# The loss of the balance per sequence must not bring the example's number of texts into a graph with routing.
CLASSIFIER = dict(
    cls_token=True,
    position="learned",
    max_positions=25,
    encoder_sparse_step=4,
    bigram_buckets=30,
    sequence_balance_coef=0.01,
)


def export(checkpoint, output, *flags, format="onnx") -> int:
    return main(["export", "--checkpoint", str(checkpoint), "--format", format, "--output", str(output), *flags])


@pytest.fixture(scope="module", params=["classifier", "masked"])
def exported(request, tmp_path_factory):
    """(pipeline, folder of its export with routing); the classifier's is TensorRT's: that of ONNX and two scripts."""
    format = "onnx"
    folder = tmp_path_factory.mktemp("exported")
    if request.param == "classifier":
        format = "tensorrt"
        pipeline = Predictor.from_checkpoint(save_tiny_checkpoint(folder / "model", **CLASSIFIER))
    else:
        config = save_tiny_mask_filler(folder / "model", num_layers=2) / "config.json"
        known = json.loads(config.read_text(encoding="utf-8"))
        del known["problem_type"]  # As earlier versions wrote it.
        config.write_text(json.dumps(known), encoding="utf-8")
        pipeline = MaskFiller.from_checkpoint(folder / "model")
    assert export(folder / "model", folder / "onnx", "--with_routing", format=format) == 0
    return pipeline, folder / "onnx"


def some_ids(pipeline, texts: int, longest: int) -> list[list[int]]:
    lengths = torch.linspace(1, longest, texts).long().tolist()
    random = torch.Generator().manual_seed(texts)
    return [torch.randint(1, pipeline.model.config.vocab_size, (one,), generator=random).tolist() for one in lengths]


def test_a_graph_gives_the_models_logits_and_choices_for_every_batch(exported):
    pipeline, folder = exported
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = [one.name for one in session.get_outputs()]
    assert [one.name for one in session.get_inputs()] == ["input_ids", "attention_mask"] and names[0] == "logits"
    longest = 24 if pipeline.added else 128
    chosen = 0
    for texts, side in [(1, "right"), (7, "left"), (32, "right"), (32, "left")]:
        ids, mask = padded(some_ids(pipeline, texts, longest), pipeline.model.config.pad_token_id)
        if side == "left":
            ids, mask = ids.flip(1), mask.flip(1)
        with torch.no_grad():
            expected = pipeline.model(ids, mask, output_routing=True)
        found = dict(
            zip(names, session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}), strict=True)
        )
        np.testing.assert_allclose(found["logits"], expected.logits, atol=1e-4)
        for record in expected.routing:
            real = record.mask.numpy()
            assert (found[f"{record.name}.expert"] == record.expert.numpy())[real].all()
            np.testing.assert_allclose(found[f"{record.name}.gate"][real], record.gate.numpy()[real], atol=1e-4)
            chosen += record.choices
    assert (chosen > 0).all()  # Every expert is in the graph: each had tokens.


def test_the_script_beside_a_graph_answers_as_the_pipeline_without_torch(exported):
    pipeline, folder = exported
    texts = [" ".join(WORDS * 3), f"{WORDS[3]} ___ {WORDS[1]} ___"]
    if pipeline.added:
        expected = [
            {"label": one.label, "scores": pytest.approx(one.scores, abs=1e-4)} for one in pipeline.batch(texts)
        ]
    else:
        texts = texts[1:]
        blanks = [[word for word, _ in blank.candidates] for blank in pipeline(texts[0]).blanks]
    code = (
        "import runpy, sys; sys.argv[0] = sys.argv.pop(1); runpy.run_path(sys.argv[0], run_name='__main__');"
        "assert not {'torch', 'transformers', 'switch_model'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(folder / "infer.py"), *texts]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if pipeline.added:
        assert answers == expected
    else:
        special = set(pipeline.tokenizer.all_special_tokens)
        [found] = [answer["blanks"] for answer in answers]
        assert len(found) == len(blanks) == 2
        for words, own in zip(found, blanks, strict=True):
            words = [word for word in words if word and word not in special]
            assert words == own[: len(words)]


def test_an_exported_folder_is_complete(exported):
    pipeline, folder = exported
    names = {
        "README.md",
        "config.json",
        "infer.py",
        "texts.py",
        "model.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    names |= {"build_engine.sh", "infer_trt.py"} if pipeline.added else set()
    assert {path.name for path in folder.iterdir()} == names
    graph = onnx.load(folder / "model.onnx").graph
    assert [one.dim_param for one in graph.input[0].type.tensor_type.shape.dim] == ["texts", "tokens"]


def test_a_graph_that_tensorrt_can_not_read_is_refused(tmp_path):
    types = {name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [1]) for name in "abc"}
    node = onnx.helper.make_node("BitwiseXor", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph([node], "xor", [types["a"], types["b"]], [types["c"]])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="BitwiseXor"):
        check_operators(tmp_path / "model.onnx")


def test_tensorrts_script_asks_for_shapes_that_the_graph_takes(exported, tmp_path):
    pipeline, folder = exported
    if not pipeline.added:
        return
    shutil.copyfile(folder / "model.onnx", tmp_path / "model.onnx")
    shutil.copyfile(folder / "build_engine.sh", tmp_path / "build_engine.sh")
    (tmp_path / "trtexec").write_text('#!/bin/sh\necho "--stronglyTyped" "$@"\n')  # Names its arguments.
    (tmp_path / "trtexec").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    command = ["bash", str(tmp_path / "build_engine.sh"), "--verbose"]
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True)
    flags = dict(word.partition("=")[::2] for word in done.stdout.split())
    assert {"--stronglyTyped", "--verbose"} <= set(flags) and "--noTF32" not in flags
    session = onnxruntime.InferenceSession(tmp_path / flags["--onnx"])
    for kind in ("min", "opt", "max"):
        shapes = dict(one.split(":") for one in flags[f"--{kind}Shapes"].split(","))
        given = {name: np.ones([int(size) for size in shape.split("x")], np.int64) for name, shape in shapes.items()}
        assert len(session.run(["logits"], given)[0]) == len(given["input_ids"])


@pytest.fixture(scope="module", params=[save_tiny_storyteller, save_tiny_translator])
def writing(request, tmp_path_factory):
    """(generator, folder of its export with routing), of a model that writes text."""
    folder = tmp_path_factory.mktemp("writing")
    sizes = {"num_layers": 1, "num_experts": 2}
    if request.param is save_tiny_storyteller:
        sizes |= {"position": "learned", "max_positions": 90}
    else:
        sizes |= {"cls_token": True, "decoder_sparse_step": 3}
    generator = TextGenerator.from_checkpoint(request.param(folder / "model", **sizes))
    assert export(folder / "model", folder / "onnx", "--with_routing") == 0
    return generator, folder / "onnx"


def test_no_engine_is_built_of_a_model_that_writes_text(writing, tmp_path, capsys):
    assert export(writing[1].parent / "model", tmp_path / "trt", format="tensorrt") == 2
    assert "writes text with a cache" in capsys.readouterr().err and not (tmp_path / "trt").exists()


def test_graphs_with_a_cache_give_the_models_logits_and_choices_for_every_batch(writing, tmp_path):
    generator, folder = writing
    model, run = generator.model, onnx_runner(folder)
    found = compare(model, run, random_batches(model, [(1, 1), (7, 3), (32, 80), (5, 128)]))
    assert found.choices > 3000 and found.other_choices == found.other_words == 0
    assert len(found.reached) == model.config.num_experts * len(model.stacks)
    other = copy.deepcopy(model)
    for name, weight in other.named_parameters():
        weight.data *= 1.5 if "experts.wo" in name else 1.0
    with pytest.raises(ValueError, match="logits differ"):
        compare(other, run, random_batches(model))
    for path in folder.glob("*.onnx"):
        quantize(path, tmp_path / path.name)
        kinds = {one.data_type for one in onnx.load(tmp_path / path.name).graph.initializer}
        assert onnx.TensorProto.INT8 in kinds
    assert compare(model, onnx_runner(tmp_path), random_batches(model), tolerance=None).difference > found.difference


def test_the_script_beside_graphs_with_a_cache_writes_the_models_text(writing, capsys, monkeypatch):
    generator, folder = writing
    monkeypatch.syspath_prepend(folder)
    texts = ["Once upon a time", "The weather is nice"] + ([] if generator.has_encoder else [""])

    def written(*flags: str) -> list[str]:
        monkeypatch.setattr("sys.argv", ["infer.py", *texts, "--max_new_tokens", "12", *flags])
        runpy.run_path(str(folder / "infer.py"), run_name="__main__")
        return [json.loads(line)["generated_text"] for line in capsys.readouterr().out.splitlines()]

    assert written() == [one.text for one in generator.batch(texts, Decoding(12))]
    assert written("--num_beams", "3") == [one.text for one in generator.batch(texts, Decoding(12, num_beams=3))]
    sample = "--do_sample", "--temperature", "2", "--top_p", "0.9", "--seed"
    assert written(*sample, "1") == written(*sample, "1") != written(*sample, "2")
    assert written(*sample, "1", "--top_k", "1") == written()
    for refused in (["--max_new_tokens", "0"], ["--do_sample", "--num_beams", "2"]):
        with pytest.raises(SystemExit, match="error: --"):
            written(*refused)


@pytest.mark.parametrize("format", [*INSTEAD, "onxx"])
def test_a_format_that_is_not_written_is_refused_with_what_to_do(format, tmp_path, capsys):
    assert export(tmp_path, tmp_path / "out", format=format) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and ("Use " in said or "did you mean onnx?" in said)
    assert not (tmp_path / "out").exists()


def test_a_full_folder_a_missing_package_and_a_strange_flag_are_reported(tmp_path, capsys, monkeypatch):
    model = save_tiny_checkpoint(tmp_path / "model")
    assert export(model, model) == 2
    assert "is not empty" in capsys.readouterr().err
    monkeypatch.setattr("train.release.formats.onnx_folder.PACKAGES", ("no_such_package",))
    assert export(model, tmp_path / "onnx") == 2
    assert "pip install no_such_package" in capsys.readouterr().err
    for format in ("torchao", "openvino"):
        monkeypatch.setattr(f"train.release.formats.{format}_folder.PACKAGE", "no_such_package")
        assert export(model, tmp_path / "onnx", format="torchao-int8" if format == "torchao" else format) == 2
        assert "pip install no_such_package" in capsys.readouterr().err
    counted = save_tiny_checkpoint(tmp_path / "counted", counted_rows=9)
    assert export(counted, tmp_path / "onnx", format="openvino") == 2
    assert "(counted_rows)" in capsys.readouterr().err and not (tmp_path / "onnx").exists()


@pytest.fixture
def exported_graph(exported, monkeypatch):
    """Exports find their graph where `exported` has it already."""
    monkeypatch.setattr(onnx_graph, "write_onnx", lambda graph, path: shutil.copyfile(exported[1] / path.name, path))


def test_int8_is_smaller_and_keeps_names_and_files(exported, exported_graph, tmp_path, capsys):
    pipeline, folder = exported
    assert export(folder.parent / "model", tmp_path / "int8", "--with_routing", format="onnx-int8") == 0
    assert "Weights in int8" in capsys.readouterr().out
    scripts = {"build_engine.sh", "infer_trt.py"}
    assert {path.name for path in (tmp_path / "int8").iterdir()} == {path.name for path in folder.iterdir()} - scripts
    whole, small = (onnxruntime.InferenceSession(at / "model.onnx") for at in (folder, tmp_path / "int8"))
    assert [one.name for one in small.get_outputs()] == [one.name for one in whole.get_outputs()]
    weights = onnx.load(tmp_path / "int8/model.onnx").graph.initializer
    config = pipeline.model.config
    size = config.d_model * config.d_ff
    experts = [one for one in weights if one.data_type == onnx.TensorProto.INT8 and np.prod(one.dims) == size]
    assert len(experts) >= 2 * len(config.sparse_layers) * config.num_experts
    ids, mask = padded(some_ids(pipeline, 7, 24), pipeline.model.config.pad_token_id)
    given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    one, other = (session.run(["logits"], given)[0] for session in (whole, small))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9
