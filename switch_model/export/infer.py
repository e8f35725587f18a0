"""Runs the exported model beside it, without torch: python infer.py "A text" "Another one" --provider cpu"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def run(folder: Path, texts: list[str], provider: str = "cpu") -> list[dict]:
    if PROVIDERS[provider] not in onnxruntime.get_available_providers():
        raise SystemExit(f"error: this onnxruntime has no {PROVIDERS[provider]}. Install onnxruntime-gpu.")
    names = ("config.json", "tokenizer_config.json")
    config, reading = (json.loads((folder / name).read_text("utf-8")) for name in names)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(reading["model_max_length"])
    tokenizer.enable_padding(pad_id=config["pad_token_id"])
    texts = [re.sub("_{3,}", reading.get("mask_token", "___"), text) for text in texts]
    encoded = tokenizer.encode_batch([text.encode("utf-8", "replace").decode() for text in texts])
    if not all(any(one.attention_mask) for one in encoded):
        raise SystemExit("error: a text is empty, or has no visible character.")
    inputs = {"input_ids": [one.ids for one in encoded], "attention_mask": [one.attention_mask for one in encoded]}
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=[PROVIDERS[provider]])
    logits = session.run(["logits"], {name: np.array(rows, dtype=np.int64) for name, rows in inputs.items()})[0]
    if config["problem_type"] == "multi_label_classification":
        scores = 1 / (1 + np.exp(-logits))
    else:
        scores = np.exp(logits - logits.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
    if logits.ndim == 2:  # (texts, classes)
        labels = [config["id2label"][str(index)] for index in range(logits.shape[1])]
        named = [dict(zip(labels, row.tolist(), strict=True)) for row in scores]
        return [{"label": max(one, key=one.__getitem__), "scores": one} for one in named]
    masked = [np.array(one.ids) == tokenizer.token_to_id(reading["mask_token"]) for one in encoded]
    best = [(-row[places]).argsort(-1)[:, :5] for row, places in zip(scores, masked, strict=True)]
    return [{"blanks": [[tokenizer.decode([index]) for index in blank] for blank in blanks]} for blanks in best]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--provider", choices=PROVIDERS, default="cpu")
    given = parser.parse_args()
    for answer in run(Path(__file__).resolve().parent, given.texts, given.provider):
        print(json.dumps(answer, ensure_ascii=False))
