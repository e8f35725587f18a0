"""Writes text with the model beside it, without torch: python infer.py "Once upon a time" --max_new_tokens 60

The most probable token each time, or --do_sample with --temperature, --top_k, --top_p and --seed, or --num_beams.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parent
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
GAP = re.compile(r"(<extra_id_\d+>)")


class Model:
    """Its graphs, and the cache of the text being written: keys and values of earlier tokens, a row for each beam."""

    def __init__(self, provider: str):
        if PROVIDERS[provider] not in onnxruntime.get_available_providers():
            raise SystemExit(f"error: this onnxruntime has no {PROVIDERS[provider]}. Install onnxruntime-gpu.")
        opened = {
            path.stem: onnxruntime.InferenceSession(path, providers=[PROVIDERS[provider]])
            for path in FOLDER.glob("*.onnx")
        }
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
        names = [one.name for one in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
        present = {name: value for name, value in outputs.items() if name.startswith("present.")}
        self.cache |= {name.replace("present.", "past_key_values."): value for name, value in present.items()}
        return outputs[names[0]]


def sampled(logs: np.ndarray, given: argparse.Namespace, random: np.random.Generator) -> int:
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


def main(given: argparse.Namespace) -> None:
    names = ("config.json", "tokenizer_config.json", "generation_config.json")
    config, reading, writing = (json.loads((FOLDER / name).read_text("utf-8")) for name in names)
    tokenizer, model = Tokenizer.from_file(str(FOLDER / "tokenizer.json")), Model(given.provider)
    own = FOLDER / "target_tokenizer.json"  # Of a translator with two vocabularies.
    writer = Tokenizer.from_file(str(own)) if own.exists() else tokenizer
    tokenizer.enable_truncation(reading["model_max_length"], direction="right" if model.encoder else "left")
    end, most = writing["eos_token_id"], config["max_positions"] if config["position"] == "learned" else 10**9
    for text in given.texts:
        if gaps := config["restores_gaps"]:
            start, *rest = re.split("_{3,}", text)
            text = start + "".join(f"<extra_id_{index}>{piece}" for index, piece in enumerate(rest))
        ids = tokenizer.encode(text.encode("utf-8", "replace").decode()).ids
        if not model.encoder:
            while ids and ids[-1] == end:
                ids = ids[:-1]
            ids = (ids or [writing["bos_token_id"]])[-(most - min(given.max_new_tokens, most // 2)) :]
        elif not text.strip():
            raise SystemExit("error: a text is empty: there is nothing to read.")
        first = [config["decoder_start_token_id"]] if model.encoder else ids
        model.start(ids)
        written = write(model, first, min(given.max_new_tokens, most - len(first)), end, given)
        before = [] if model.encoder else ids
        answer = writer.decode([*before, *written])[len(writer.decode(before)) if before else 0 :]
        if gaps and GAP.search(text):
            parts = GAP.split(writer.decode([one for one in written if one != end], skip_special_tokens=False))
            spans = dict(zip(parts[1::2], parts[2::2], strict=True))
            pieces = GAP.split(text)
            pieces[1::2] = [spans.get(gap, "").strip() or "___" for gap in pieces[1::2]]
            answer = "".join(pieces)
        print(json.dumps({"generated_text": answer}, ensure_ascii=False))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("texts", nargs="+")
parser.add_argument("--provider", choices=PROVIDERS, default="cpu")
parser.add_argument("--do_sample", action="store_true")
for name, default in {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "seed": 0,
    "num_beams": 1,
    "max_new_tokens": 60,
}.items():
    parser.add_argument(f"--{name}", type=type(default), default=default)

if __name__ == "__main__":
    main(parser.parse_args())
