"""Classes of texts, or what a model writes for them, from the command line: texts given as arguments, on standard
input, in a file, or rows of a data set.

Try it: python -m train predict --checkpoint assets/models/ag_news "Oil prices rose." --trace
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from transformers import PreTrainedTokenizerFast, set_seed

from switch_model.base import SwitchPreTrainedModel
from switch_model.modeling import SwitchForSequenceClassification
from switch_model.predictor import Prediction, Predictor
from train.arguments import Arguments
from train.columns import choose_columns, texts_of
from train.data import load_split
from train.evaluation import load_rows
from train.pairs import load_pairs
from train.rows import make_tokenizer, read_data
from train.tables import read_table
from train.toy import make_toy_split
from train.training import pick_device
from train.writing import STORY, continue_texts, translate

SHOWN_CHARACTERS = 60


def predict_all(predictor: Predictor, texts: Iterable[str], batch_size: int) -> Iterator[Prediction | None]:
    """One prediction per text, in order; None for a text without a token."""
    texts = iter(texts)
    while batch := list(islice(texts, batch_size)):
        readable = [index for index, text in enumerate(batch) if _has_tokens(predictor, text)]
        found = dict(zip(readable, predictor.batch([batch[index] for index in readable]), strict=True))
        yield from (found.get(index) for index in range(len(batch)))


def random_predictor(num_classes: int, vocab_size: int, seed: int, device: str | None) -> Predictor:
    """A model with the command line's default shape that has learned nothing, and the toy data's own words."""
    arguments = Arguments.resolve({"num_classes": num_classes, "vocab_size": vocab_size})
    arguments.check()
    tokenizer = make_tokenizer(arguments, read_data(arguments))
    set_seed(seed)
    labels = [f"class {index}" for index in range(num_classes)]
    model = SwitchForSequenceClassification(arguments.config(len(tokenizer), tokenizer.pad_token_id, labels))
    return Predictor(model.to(pick_device(device)), tokenizer)


def rows_to_show(
    checkpoint: str | None,
    dataset: str,
    split: str | None,
    data_dir: str | None,
    num_samples: int,
    toy_shape: dict[str, int] | None,
    **columns: str | None,
) -> tuple[list[str], list[str]]:
    """Texts and true class names of the first rows of a split. `toy_shape`: of toy data without a checkpoint."""
    if dataset == "toy" and toy_shape is not None:
        rows, names = make_toy_split(split, **toy_shape)
    elif checkpoint is None:
        rows, names = load_split(dataset, split, data_dir, **columns)
    else:
        rows, names = load_rows(checkpoint, dataset, split, data_dir, **columns)
    rows = rows.select(range(min(num_samples, len(rows))))
    return list(rows["text"]), [names[label] for label in rows["label"]]


def _has_tokens(predictor: Predictor, text: str) -> bool:
    return bool(text.strip()) and bool(predictor.tokenizer.tokenize(text[:1000]))


def classify_file(predictor: Predictor, source: Path, target: TextIO, text_column: str | None, batch_size: int) -> None:
    """Copy a table, as CSV, with two kinds of columns added: `predicted`, and `p(class)` for each class.

    Raises:
        DataError: when the file is not there, can't be read, or its column of texts can't be told.
    """
    rows = read_table(source)
    texts = texts_of(rows, choose_columns(str(source), rows.column_names, text_column, None, labelled=False))
    labels = predictor.model.config.labels
    writer = csv.DictWriter(target, [*rows.column_names, "predicted", *(f"p({label})" for label in labels)])
    writer.writeheader()
    for row, prediction in zip(rows, predict_all(predictor, texts, batch_size), strict=True):
        if prediction is not None:
            row |= {"predicted": prediction.label}
            row |= {f"p({label})": f"{score:.4f}" for label, score in prediction.scores.items()}
        writer.writerow(row)


def routing_table(prediction: Prediction) -> str:
    """A line per token: the expert of each sparse layer and its gate; a dropped token's expert stands in brackets."""
    records = prediction.routing
    lines = [" ".join([f"{'token':16}", *(f"{record.name:>14}" for record in records)])]
    for index, token in enumerate(prediction.tokens):
        cells = []
        for record in records:
            expert, gate = int(record.expert[0, index]), float(record.gate[0, index])
            name = f"({expert})" if record.dropped[0, index] else str(expert)
            cells.append(f"{name + f' {gate:.2f}':>14}")
        lines.append(" ".join([f"{token.strip()[:16]:16}", *cells]))
    return "\n".join([*lines, "(n): expert n was full, the token was dropped"])


def as_json(text: str, prediction: Prediction | None) -> dict[str, Any]:
    """A prediction with its routing records, ready for JSON."""
    if prediction is None:
        return {"text": text, "label": None}
    return {
        "text": text,
        "label": prediction.label,
        "scores": prediction.scores,
        "tokens": prediction.tokens,
        "routing": [record.to_dict() for record in prediction.routing],
    }


def print_texts(
    predictor: Predictor,
    texts: Sequence[str],
    true_labels: Sequence[str] | None,
    batch_size: int,
    trace: bool,
    trace_file: str | None,
) -> None:
    """A line per text: its class and probability (with true labels: true, predicted), and where wanted the routing."""
    traced = []
    for index, prediction in enumerate(predict_all(predictor, texts, batch_size)):
        start = " ".join(texts[index].split())[:SHOWN_CHARACTERS]
        said = "no text" if prediction is None else f"{prediction.label} {prediction.scores[prediction.label]:.3f}"
        print("\t".join([*([true_labels[index]] if true_labels else []), said, start]))
        if trace and prediction is not None:
            print(routing_table(prediction))
        if trace_file:
            traced.append(as_json(texts[index], prediction))
    if trace_file:
        Path(trace_file).write_text(json.dumps(traced) + "\n", encoding="utf-8")
        print(f"Routing of {len(traced)} texts: {trace_file}", file=sys.stderr)


def write_texts(model: SwitchPreTrainedModel, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> None:
    """`python -m train predict` for a model that writes: a line per text, or a table with a column `written` added.

    Raises DataError when a file or a data set can't be read; ValueError for what only classifiers have.
    """
    if options.trace or options.trace_file:
        raise ValueError("--trace shows the routing of a classifier; look at this model in the app: python app.py")
    rows, texts = None, options.texts
    if options.file:
        rows = read_table(Path(options.file))
        texts = texts_of(
            rows, choose_columns(options.file, rows.column_names, options.text_column, None, labelled=False)
        )
    elif options.dataset:
        if model.config.is_encoder_decoder:
            texts = load_pairs(options.dataset, options.split, options.data_dir, options.text_column)["text"][:]
        else:
            texts = load_split(options.dataset, options.split, options.data_dir, labelled=False)[0]["text"][:]
        texts = texts[: options.num_samples or 20]
    elif not texts:
        texts = [line.rstrip("\n") for line in sys.stdin]
    length = options.max_new_tokens
    if model.config.is_encoder_decoder:
        settings = dict(batch_size=options.batch_size or 32, num_beams=options.num_beams, max_new_tokens=length)
        answers = translate(model, tokenizer, texts, **settings)
    else:
        asked = {"max_new_tokens": length, "temperature": options.temperature}
        asked = {name: value for name, value in asked.items() if value is not None}
        answers = continue_texts(model, tokenizer, texts, replace(STORY, seed=options.seed, **asked))
    if options.save_text:
        Path(options.save_text).write_text("".join(f"{_line(answer)}\n" for answer in answers), encoding="utf-8")
    if rows is None:
        print("\n".join(map(_line, answers)))
        return
    copy = io.StringIO(newline="")
    writer = csv.DictWriter(copy, [*rows.column_names, "written"])
    writer.writeheader()
    writer.writerows(row | {"written": answer} for row, answer in zip(rows, answers, strict=True))
    if options.output:
        Path(options.output).write_text(copy.getvalue(), encoding="utf-8", newline="")
    else:
        print(copy.getvalue(), end="")


def _line(text: str) -> str:
    return " ".join(text.split())
