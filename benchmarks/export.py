"""Exported models against PyTorch: time of one text, size, parity over 200 texts, accuracy, or loss of a model that
writes.

python -m benchmarks.export FOLDER [FOLDER …] --checkpoint C                              time and size
python -m benchmarks.export FOLDER … --checkpoint C --parity                              parity too
python -m benchmarks.export FOLDER … --dataset ag_news --split test --data_dir DATA       accuracy too, or the loss

Each FOLDER was written by python -m train export of the checkpoint, with --format onnx, onnx-int8, torchao-int8 or
openvino. Parity: 200 random texts of 1 to 128 tokens in batches of 1 to 32, padded on either side. A model that writes
is timed for a prompt, and for one token after 64.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.timing import compare as compare_times
from switch_model.checkpoint import load_checkpoint
from switch_model.export.graphs import PAST, SOURCE, SOURCE_MASK, TEXTS, TOKENS, Graph, as_past, graphs_of
from switch_model.export.onnx_graph import onnx_runner
from switch_model.export.parity import Runner, compare, random_batches
from switch_model.export.torchao_int8 import WEIGHTS, open_quantized
from switch_model.inference.batching import padded
from switch_model.inference.classifier import Predictor
from switch_model.models.pretrained import SwitchPreTrainedModel
from train.data.loading import load_split
from train.data.pairs import load_pairs
from train.data.source import DataSource
from train.data.tokenizers import tokenize, tokenize_pairs
from train.release.formats.openvino_folder import openvino_runner

LENGTHS = (16, 64, 128)
# (texts, tokens): each is padded on the left and on the right, 200 texts in all.
PARITY = ((1, 1), (1, 2), (2, 128), (4, 9), (8, 33), (20, 17), (32, 64), (32, 128))
BATCH = 32


@torch.inference_mode()
def time_one_text(model: SwitchPreTrainedModel, runners: dict[str, Runner]) -> None:
    for graph in graphs_of(model):
        lengths = [(tokens, 0) for tokens in LENGTHS] + (
            [(1, 64)] if any(PAST in one for one in graph.inputs.values()) else []
        )
        for tokens, past in lengths:
            inputs = inputs_of(graph, model, {TEXTS: 1, TOKENS: tokens, PAST: past, SOURCE: 32})
            contestants = {"PyTorch": lambda graph=graph, inputs=inputs: graph.run(inputs)}
            for name, run in runners.items():
                contestants[name] = lambda run=run, graph=graph, inputs=inputs: run(graph, inputs)
            found = compare_times(contestants, baseline="PyTorch")
            ratios = ", ".join(f"{name} {found[name]:.2f} × its time" for name in runners)
            after = f" after {past}" if past else ""
            print(f"{graph.name}, {tokens} tokens{after}: PyTorch {found['PyTorch ms']:.2f} ms, {ratios}", flush=True)


def runner_of(folder: Path) -> Runner:
    if (folder / "model.xml").is_file():
        return openvino_runner(folder, threads=1)
    if not (folder / WEIGHTS).is_file():
        return onnx_runner(folder, threads=1)
    graphs = {graph.name: graph for graph in graphs_of(open_quantized(folder).model)}
    return lambda graph, inputs: graphs[graph.name].run(inputs)


def inputs_of(graph: Graph, model: SwitchPreTrainedModel, sizes: dict[str, int]) -> dict[str, torch.Tensor]:
    """Random tokens, nothing masked, random keys and values; a size may be a sum: "past_tokens + tokens"."""
    random, words = torch.Generator().manual_seed(0), model.config.decoder_vocab_size or model.config.vocab_size
    given = {}
    for name in graph.inputs:
        shape = graph.shape(name, sizes)
        if name == "input_ids":
            given[name] = torch.randint(words, shape, generator=random)
        else:
            given[name] = (
                torch.ones(shape, dtype=torch.long) if "mask" in name else torch.randn(shape, generator=random)
            )
    return given


def parity(model: SwitchPreTrainedModel, runners: dict[str, Runner]) -> None:
    for name, run in runners.items():
        found = compare(model, run, random_batches(model, PARITY), tolerance=None)
        experts = model.config.num_experts * len({layer for layer, _ in found.reached})
        print(
            f"{name}: {found.texts} texts in {found.batches} batches, logits differ by at most {found.difference:.1e}, "
            f"{found.other_words:,} of {found.words:,} likeliest words or classes and {found.other_choices:,} of "
            f"{found.choices:,} choices of experts differ; {len(found.reached)} of {experts} experts were reached",
            flush=True,
        )


@torch.inference_mode()
def accuracy(predictor: Predictor, runners: dict[str, Runner], source: DataSource) -> None:
    rows, names = load_split(source)
    [graph] = graphs_of(predictor.model)
    if names != predictor.model.config.labels:
        raise SystemExit(f"error: the split's classes are {names}, the model's {predictor.model.config.labels}.")
    read = [predictor.read(text).ids for text in rows["text"]]
    order = sorted((index for index, ids in enumerate(read) if ids), key=lambda index: len(read[index]))
    truth = np.array(rows["label"])[order]
    chosen: dict[str, list[int]] = {name: [] for name in ("PyTorch", *runners)}
    for start in range(0, len(order), BATCH):
        ids, mask = padded([read[index] for index in order[start : start + BATCH]], predictor.model.config.pad_token_id)
        chosen["PyTorch"] += predictor.model(ids, mask).logits.argmax(-1).tolist()
        for name, run in runners.items():
            chosen[name] += run(graph, {"input_ids": ids, "attention_mask": mask})["logits"].argmax(-1).tolist()
    for name, classes in chosen.items():
        same = np.mean(np.array(classes) == np.array(chosen["PyTorch"]))
        right = np.mean(np.array(classes) == truth)
        print(f"{name}: accuracy {right:.2%} of {len(truth):,} rows, the class of PyTorch in {same:.2%}", flush=True)


@torch.inference_mode()
def next_tokens(
    model: SwitchPreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    runners: dict[str, Runner],
    source: DataSource,
    rows: int,
) -> None:
    """Loss, and share of next tokens that are the most probable ones, each after the text's own earlier tokens."""
    *readers, writer = graphs_of(model)
    runs: dict[str, Runner] = {"PyTorch": lambda graph, inputs: graph.run(inputs), **runners}
    nats, right, asked = dict.fromkeys(runs, 0.0), dict.fromkeys(runs, 0), 0
    found = load_pairs(source) if readers else load_split(source, labelled=False)[0]
    found = found.select(range(min(rows, len(found))))
    for row in tokenize_pairs(found, tokenizer, cut=True) if readers else tokenize(found, tokenizer):
        ids = torch.tensor([row["input_ids"]])
        target = torch.tensor([[model.config.decoder_start_token_id, *row["labels"]]]) if readers else ids
        asked += target.shape[1] - 1
        for name, run in runs.items():
            given = {"input_ids": target[:, :-1], "attention_mask": torch.ones_like(target[:, :-1])}
            for reader in readers:
                read = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                given |= {SOURCE_MASK: read["attention_mask"], **as_past(run(reader, read))}
            logits = run(writer, given | writer.empty_past(1))["logits"][0]
            nats[name] += float(torch.nn.functional.cross_entropy(logits, target[0, 1:], reduction="sum"))
            right[name] += int((logits.argmax(-1) == target[0, 1:]).sum())
    for name in runs:
        share = right[name] / asked
        print(
            f"{name}: loss {nats[name] / asked:.4f}, {share:.2%} of {asked:,} next tokens, {len(found):,} rows",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--checkpoint", default="assets/models/ag_news")
    parser.add_argument("--parity", action="store_true")
    parser.add_argument("--dataset", help="none = no accuracy")
    parser.add_argument("--split", default="test")
    parser.add_argument("--data_dir")
    parser.add_argument("--rows", type=int, default=500, help="rows for the loss of a model that writes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_checkpoint(given.checkpoint, "cpu")
    runners = {folder.name: runner_of(folder) for folder in given.folders}
    for folder in given.folders:
        files = sorted([*folder.glob("*.onnx"), *folder.glob("*.bin"), *folder.glob(WEIGHTS)])
        sizes = [f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in files]
        print(f"{folder.name}: {', '.join(sizes)}")
    if given.parity:
        parity(model, runners)
    if given.dataset:
        source = DataSource(given.dataset, split=given.split, data_dir=given.data_dir)
        if model.can_generate():
            next_tokens(model, tokenizer, runners, source, given.rows)
        else:
            accuracy(Predictor(model, tokenizer), runners, source)
    print(f"one thread; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    time_one_text(model, runners)


if __name__ == "__main__":
    main()
