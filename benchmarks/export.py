"""An exported classifier against PyTorch: time of one text, size, and accuracy on a split.

python -m benchmarks.export FOLDER [FOLDER …]                                             time and size
python -m benchmarks.export FOLDER … --dataset ag_news --split test --data_dir DATA       accuracy too

Each FOLDER was written by python -m train export --format onnx or onnx-int8, of --checkpoint.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from benchmarks.timing import compare
from switch_model import Predictor
from switch_model.inference.pipeline import padded
from train.data.loading import load_split
from train.data.source import DataSource

LENGTHS = (16, 64, 128)
BATCH = 32


def session_of(folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def logits_of(session: onnxruntime.InferenceSession, ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    return session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]


@torch.inference_mode()
def time_one_text(predictor: Predictor, sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    for length in LENGTHS:
        ids = torch.randint(
            5, predictor.model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(length)
        )
        mask = torch.ones_like(ids)
        contestants = {"PyTorch": lambda ids=ids, mask=mask: predictor.model(ids, mask)}
        for name, session in sessions.items():
            contestants[name] = lambda ids=ids, mask=mask, session=session: logits_of(session, ids, mask)
        found = compare(contestants, baseline="PyTorch")
        ratios = ", ".join(f"{name} {found[name]:.2f} × its time" for name in sessions)
        print(f"1 text of {length} tokens: PyTorch {found['PyTorch ms']:.2f} ms, {ratios}", flush=True)


@torch.inference_mode()
def accuracy(predictor: Predictor, sessions: dict[str, onnxruntime.InferenceSession], source: DataSource) -> None:
    rows, names = load_split(source)
    if names != predictor.model.config.labels:
        raise SystemExit(f"error: the split's classes are {names}, the model's {predictor.model.config.labels}.")
    read = [predictor.read(text).ids for text in rows["text"]]
    order = sorted((index for index, ids in enumerate(read) if ids), key=lambda index: len(read[index]))
    truth = np.array(rows["label"])[order]
    chosen: dict[str, list[int]] = {name: [] for name in ("PyTorch", *sessions)}
    for start in range(0, len(order), BATCH):
        ids, mask = padded([read[index] for index in order[start : start + BATCH]], predictor.model.config.pad_token_id)
        chosen["PyTorch"] += predictor.model(ids, mask).logits.argmax(-1).tolist()
        for name, session in sessions.items():
            chosen[name] += logits_of(session, ids, mask).argmax(-1).tolist()
    for name, classes in chosen.items():
        same = np.mean(np.array(classes) == np.array(chosen["PyTorch"]))
        right = np.mean(np.array(classes) == truth)
        print(f"{name}: accuracy {right:.2%} of {len(truth):,} rows, the class of PyTorch in {same:.2%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--checkpoint", default="assets/models/ag_news")
    parser.add_argument("--dataset", help="none = no accuracy")
    parser.add_argument("--split", default="test")
    parser.add_argument("--data_dir")
    given = parser.parse_args()
    torch.set_num_threads(1)
    predictor = Predictor.from_checkpoint(given.checkpoint, "cpu")
    sessions = {folder.name: session_of(folder) for folder in given.folders}
    for folder in given.folders:
        print(f"{folder.name}: model.onnx {(folder / 'model.onnx').stat().st_size / 1e6:.1f} MB")
    if given.dataset:
        accuracy(predictor, sessions, DataSource(given.dataset, split=given.split, data_dir=given.data_dir))
    print(f"one thread; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    time_one_text(predictor, sessions)


if __name__ == "__main__":
    main()
