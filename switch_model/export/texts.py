"""Texts as an exported graph's inputs, and its logits as answers. Lies beside the graph; needs tokenizers and numpy."""

import json
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer


class Texts:
    """Texts as the graph's inputs, and its logits as answers. Raises ValueError for a text without a token."""

    def __init__(self, folder: Path):
        names = ("config.json", "tokenizer_config.json")
        self.config, self.reading = (json.loads((folder / name).read_text("utf-8")) for name in names)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(self.reading["model_max_length"])
        self.tokenizer.enable_padding(pad_id=self.config["pad_token_id"])

    def inputs(self, texts: list[str]) -> dict[str, np.ndarray]:
        """input_ids and attention_mask, (texts, tokens) int64 each; `___` becomes the mask token."""
        texts = [re.sub("_{3,}", self.reading.get("mask_token", "___"), text) for text in texts]
        encoded = self.tokenizer.encode_batch([text.encode("utf-8", "replace").decode() for text in texts])
        if not all(any(one.attention_mask) for one in encoded):
            raise ValueError("a text is empty, or has no visible character.")
        rows = {"input_ids": [one.ids for one in encoded], "attention_mask": [one.attention_mask for one in encoded]}
        return {name: np.array(row, dtype=np.int64) for name, row in rows.items()}

    def answers(self, logits: np.ndarray, input_ids: np.ndarray) -> list[dict]:
        """For each text its label and scores, or for each of its blanks the five likeliest words."""
        if self.config["problem_type"] == "multi_label_classification":
            scores = 1 / (1 + np.exp(-logits))
        else:
            scores = np.exp(logits - logits.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
        if logits.ndim == 2:  # (texts, classes)
            labels = [self.config["id2label"][str(index)] for index in range(logits.shape[1])]
            named = [dict(zip(labels, row.tolist(), strict=True)) for row in scores]
            return [{"label": max(one, key=one.__getitem__), "scores": one} for one in named]
        blanks = input_ids == self.tokenizer.token_to_id(self.reading["mask_token"])
        best = [(-row[places]).argsort(-1)[:, :5] for row, places in zip(scores, blanks, strict=True)]
        return [{"blanks": [[self.tokenizer.decode([index]) for index in blank] for blank in one]} for one in best]
