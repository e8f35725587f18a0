"""Text that a model writes without torch: reads a text, asks its graphs for token after token, gives the text.

Lies beside the graphs; needs onnxruntime, tokenizers and numpy.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
GAP = re.compile(r"(<extra_id_\d+>)")


class Model:
    """Its graphs, and the cache of the text being written: keys and values of earlier tokens, a row for each beam.
    Raises ValueError for a provider that onnxruntime lacks."""

    def __init__(self, folder: Path, provider: str):
        if (name := PROVIDERS[provider]) not in onnxruntime.get_available_providers():
            raise ValueError(f"this onnxruntime has no {name}. Install onnxruntime-gpu.")
        opened = {path.stem: onnxruntime.InferenceSession(path, providers=[name]) for path in folder.glob("*.onnx")}
        self.encoder, self.writer = opened.get("encoder"), opened.get("decoder") or opened["model"]
        self.cache: dict[str, np.ndarray] = {}

    def start(self, source: list[int]) -> None:
        """Empty the cache; with an encoder, read the source."""
        caches = [one for one in self.writer.get_inputs() if one.name.startswith("past_key_values.")]
        self.cache = {one.name: np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32) for one in caches}
        if self.encoder:
            mask = np.ones((1, len(source)), np.int64)
            self.run(self.encoder, {"input_ids": np.array([source]), "attention_mask": mask})
            self.cache["encoder_attention_mask"] = mask

    def step(self, ids: np.ndarray, parents: list[int]) -> np.ndarray:
        """(rows, vocabulary) log-probabilities of the token after `ids` (rows, tokens), each after the text of the
        earlier row that `parents` names."""
        inputs = {name: value[parents] for name, value in self.cache.items()} | {"input_ids": ids}
        if not self.encoder:
            earlier = next(iter(self.cache.values())).shape[2]
            inputs["attention_mask"] = np.ones((len(ids), earlier + ids.shape[1]), np.int64)
        self.cache = {name: inputs[name] for name in self.cache}
        logits = self.run(self.writer, inputs)[:, -1]
        logits = logits - logits.max(-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def run(self, session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """One call of a graph: its first output; keys and values go into the cache."""
        names = [one.name for one in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
        present = {name: value for name, value in outputs.items() if name.startswith("present.")}
        self.cache |= {name.replace("present.", "past_key_values."): value for name, value in present.items()}
        return outputs[names[0]]


def check(given: argparse.Namespace) -> None:
    """Raise ValueError for settings that are not allowed."""
    rules = {
        "max_new_tokens": (given.max_new_tokens >= 1, "at least 1"),
        "num_beams": (given.num_beams >= 1, "at least 1"),
        "temperature": (0 < given.temperature < float("inf"), "above 0"),
        "top_k": (given.top_k >= 0, "at least 0"),
        "top_p": (0 < given.top_p <= 1, "above 0 and at most 1"),
        "seed": (given.seed >= 0, "at least 0"),
    }
    for name, (allowed, words) in rules.items():
        if not allowed:
            raise ValueError(f"--{name} {getattr(given, name)} is not allowed: it must be {words}.")
    if given.do_sample and given.num_beams > 1:
        raise ValueError("--num_beams above 1 and --do_sample exclude each other.")


def sampled(logs: np.ndarray, given: argparse.Namespace, random: np.random.Generator) -> int:
    """A token drawn by its log-probabilities (vocabulary,), under temperature, top_k and top_p."""
    logs = logs / given.temperature
    order = np.argsort(-logs)[: given.top_k or None]
    shares = np.exp(logs[order]) / np.exp(logs[order]).sum()
    order = order[: np.searchsorted(shares.cumsum(), given.top_p) + 1]
    return int(order[np.argmax(logs[order] + random.gumbel(size=len(order)))])


def write(model: Model, first: list[int], room: int, end: int, given: argparse.Namespace) -> list[int]:
    """At most `room` tokens after `first`; of several beams that with the highest log-probability per token."""
    random, width, ended = np.random.default_rng(given.seed), given.num_beams, []
    rows: list[list[int]] = [[]]
    ids, parents, scores = np.array([first]), [0], np.zeros(1)
    for length in range(1, room + 1):
        logs = model.step(ids, parents)
        if width == 1:
            rows[0].append(sampled(logs[0], given, random) if given.do_sample else int(logs[0].argmax()))
            if rows[0][-1] == end:
                break
        else:
            totals, going = np.reshape(scores, (-1, 1)) + logs, []
            for rank, place in enumerate(np.argsort(-totals, axis=None, kind="stable")[: 2 * width]):
                row, token = divmod(int(place), logs.shape[1])
                if token != end and length < room:
                    going.append((totals[row, token], row, [*rows[row], token]))
                elif rank < width:
                    ended.append((totals[row, token] / length, [*rows[row], token]))
            going, ended = going[:width], sorted(ended, reverse=True)[:width]
            if not going or (len(ended) == width and going[0][0] / length <= ended[-1][0]):
                break
            scores = np.array([score for score, _, _ in going])
            parents, rows = [row for _, row, _ in going], [written for _, _, written in going]
        ids = np.array([row[-1:] for row in rows])
    return ended[0][1] if ended else rows[0]


class Writer:
    """Texts -> what the model writes after each, by one of PROVIDERS. Raises ValueError for a text that can't be
    read."""

    def __init__(self, folder: Path, provider: str):
        names = ("config.json", "tokenizer_config.json", "generation_config.json")
        self.config, reading, writing = (json.loads((folder / name).read_text("utf-8")) for name in names)
        self.tokenizer, self.model = Tokenizer.from_file(str(folder / "tokenizer.json")), Model(folder, provider)
        own = folder / "target_tokenizer.json"  # Of a translator with two vocabularies.
        self.target = Tokenizer.from_file(str(own)) if own.exists() else self.tokenizer
        side = "right" if self.model.encoder else "left"
        self.tokenizer.enable_truncation(reading["model_max_length"], direction=side)
        self.opener, self.end = writing["bos_token_id"], writing["eos_token_id"]
        self.most = self.config["max_positions"] if self.config["position"] == "learned" else 10**9

    def __call__(self, text: str, given: argparse.Namespace) -> str:
        check(given)
        if self.config["restores_gaps"]:
            start, *rest = re.split("_{3,}", text)
            text = start + "".join(f"<extra_id_{index}>{piece}" for index, piece in enumerate(rest))
        ids = self.tokenizer.encode(text.encode("utf-8", "replace").decode()).ids
        if not self.model.encoder:
            while ids and ids[-1] == self.end:
                ids = ids[:-1]
            ids = (ids or [self.opener])[-(self.most - min(given.max_new_tokens, self.most // 2)) :]
        elif not text.strip():
            raise ValueError("a text is empty: there is nothing to read.")
        first = [self.config["decoder_start_token_id"]] if self.model.encoder else ids
        self.model.start(ids)
        written = write(self.model, first, min(given.max_new_tokens, self.most - len(first)), self.end, given)
        if self.config["restores_gaps"] and GAP.search(text):
            return self._filled(text, written)
        before = [] if self.model.encoder else ids
        return self.target.decode([*before, *written])[len(self.target.decode(before)) if before else 0 :]

    def _filled(self, text: str, written: list[int]) -> str:
        """The text with what was written for each of its gaps."""
        parts = GAP.split(self.target.decode([one for one in written if one != self.end], skip_special_tokens=False))
        spans, pieces = dict(zip(parts[1::2], parts[2::2], strict=True)), GAP.split(text)
        pieces[1::2] = [spans.get(gap, "").strip() or "___" for gap in pieces[1::2]]
        return "".join(pieces)
