"""`python -m train predict`: classify texts, generate text or fill blanks, for texts given as arguments, on standard
input, in a file, or in a data set.

Try it: python -m train predict --checkpoint assets/models/ag_news "Oil prices rose." --trace
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerFast, set_seed

from switch_model.inference.classifier import Prediction, Predictor
from switch_model.inference.mask_filler import BLANK, Blank, Filling, MaskFiller
from switch_model.inference.pipeline import replace_surrogates
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from switch_model.storage.whole_files import write_atomically
from train.arguments.arguments import Arguments
from train.arguments.device import pick_device
from train.data.columns import choose_columns, names_in, texts_of
from train.data.loading import load_split
from train.data.pairs import load_pairs
from train.data.source import DataSource
from train.data.table_output import write_table
from train.data.tables import read_table
from train.data.toy import make_toy_split
from train.evaluation.classification import load_rows
from train.formatting import counted, one_line
from train.tasks.generation import STORY, continue_texts, translate
from train.tasks.rows import make_tokenizer, read_data

SHOWN_CHARACTERS = 60
# Printed candidates per blank.
SHOWN_CANDIDATES = 5
# Flags that only some kinds of models support.
TRACES, SAMPLING = ("trace", "trace_file"), ("temperature", "top_k", "top_p")
NO_TEXT = "Standard input is empty. Give one text per line, or texts as arguments, --file or --dataset."
LOOK = "they show the routing of a classifier. Explore this model in the app: python app.py --checkpoint …"


def predict_all(predictor: Predictor, texts: Iterable[str], batch_size: int) -> Iterator[Prediction | None]:
    """One prediction per text, in order; None for a text without a token."""
    # The command line reads a byte that is not UTF-8 as a lone surrogate.
    texts = map(replace_surrogates, texts)
    while batch := list(islice(texts, batch_size)):
        readable = [index for index, text in enumerate(batch) if _has_tokens(predictor, text)]
        found = dict(zip(readable, predictor.batch([batch[index] for index in readable]), strict=True))
        yield from (found.get(index) for index in range(len(batch)))


def random_predictor(num_classes: int, vocab_size: int, seed: int, device: str | None) -> Predictor:
    """An untrained model of the default shape, with a tokenizer for the toy data."""
    arguments = Arguments.resolve({"num_classes": num_classes, "vocab_size": vocab_size})
    arguments.check()
    tokenizer = make_tokenizer(arguments, read_data(arguments))
    set_seed(seed)
    labels = [f"class {index}" for index in range(num_classes)]
    model = SwitchForSequenceClassification(arguments.config(len(tokenizer), tokenizer.pad_token_id, labels))
    return Predictor(model.to(pick_device(device)), tokenizer)


def rows_to_show(
    checkpoint: str | None, source: DataSource, num_samples: int, toy_shape: dict[str, int] | None
) -> tuple[list[str], list[str]]:
    """Texts and true class names of the first rows of a split. `toy_shape`: of the toy data, without a checkpoint."""
    if source.is_toy and toy_shape is not None:
        rows, names = make_toy_split(source.split, **toy_shape)
    else:
        rows, names = load_split(source) if checkpoint is None else load_rows(checkpoint, source)
    rows = rows.select(range(min(num_samples, len(rows))))
    return list(rows["text"]), [names[label] for label in rows["label"]]


def _has_tokens(predictor: Predictor, text: str) -> bool:
    return bool(text.strip()) and bool(predictor.tokenizer.tokenize(text[:1000]))


def classify_file(predictor: Predictor, source: DataSource, batch_size: int) -> tuple[Dataset, list[dict[str, Any]]]:
    """The rows of a table, and for each the new columns: `predicted`, and `p(class)` for each class.

    Raises:
        DataError: when the file can't be read, or its column of texts is ambiguous.
    """
    rows, texts = _table_and_texts(source)
    nothing = dict.fromkeys(["predicted", *(f"p({label})" for label in predictor.model.config.labels)])
    added = []
    for prediction in predict_all(predictor, texts, batch_size):
        scores = {} if prediction is None else prediction.scores
        own = {"predicted": prediction.label} if prediction else {}
        added.append(nothing | own | {f"p({label})": round(score, 4) for label, score in scores.items()})
    return rows, added


def _table_and_texts(source: DataSource) -> tuple[Dataset, list[str]]:
    rows = read_table(Path(source.dataset))
    return rows, texts_of(rows, choose_columns(source, names_in(rows), labelled=False))


def routing_table(prediction: Prediction) -> str:
    """A line per token with expert and gate in each sparse layer, in brackets if dropped. If experts vote, also each
    token's vote for the predicted class, and below them the bias and the logit. The last line is a legend."""
    records, voted = prediction.routing, prediction.votes is not None
    votes_T, bias, logit, head = [], 0.0, 0.0, []
    if voted:
        label = list(prediction.scores).index(prediction.label)
        votes_T, bias = prediction.votes[:, label].tolist(), float(prediction.bias[label])
        logit, head = float(prediction.logits[label]), [f"{'vote':>10}"]
    lines = [" ".join([f"{'token':16}", *(f"{record.name:>14}" for record in records), *head])]
    for index, token in enumerate(prediction.tokens):
        cells = []
        for record in records:
            expert, gate = int(record.expert[0, index]), float(record.gate[0, index])
            name = f"({expert})" if record.dropped[0, index] else str(expert)
            cells.append(f"{name + f' {gate:.2f}':>14}")
        if voted:
            dropped = bool(prediction.voters.dropped[0, index])
            cells.append(f"{'none' if dropped else f'{votes_T[index]:+.4f}':>10}")
        lines.append(" ".join([f"{token.strip()[:16]:16}", *cells]))
    legend = "n 0.48: the token went to expert n, with router probability (gate) 0.48"
    if any(bool(record.dropped.any()) for record in records):
        legend += "; (n): the buffer of expert n was full, the token was dropped"
    if voted:
        width = 16 + 15 * len(records)
        lines += [f"{name:{width}} {value:>+10.4f}" for name, value in (("bias", bias), ("logit", logit))]
        legend += (
            f"; vote: contribution of its expert of {prediction.voters.name} to the logit of "
            f"{one_line(prediction.label)}, which is the sum of all votes and the bias"
        )
    return "\n".join([*lines, legend])


def as_json(text: str, prediction: Prediction | None) -> dict[str, Any]:
    """A prediction with its routing records, for JSON; with votes, also "votes" (tokens × classes, in the order of
    "scores") and "bias" (one per class), which sum to the logits."""
    if prediction is None:
        return {"text": text, "label": None}
    return {
        "text": text,
        "label": prediction.label,
        "scores": prediction.scores,
        "tokens": prediction.tokens,
        "routing": [record.to_dict() for record in prediction.routing],
        **prediction.votes_to_dict(),
    }


def print_texts(
    predictor: Predictor,
    texts: Sequence[str],
    true_labels: Sequence[str] | None,
    batch_size: int,
    trace: bool,
    trace_file: str | None,
) -> None:
    """A line per text: class and probability (with true labels: true, predicted); with `trace` also the routing."""
    traced = []
    for index, prediction in enumerate(predict_all(predictor, texts, batch_size)):
        said = "no text" if prediction is None else f"{prediction.label} {prediction.scores[prediction.label]:.3f}"
        cells = [*([true_labels[index]] if true_labels else []), said, one_line(texts[index])[:SHOWN_CHARACTERS]]
        print("\t".join(map(one_line, cells)))
        if trace and prediction is not None:
            print(routing_table(prediction))
        if trace_file:
            traced.append(as_json(texts[index], prediction))
    if trace_file:
        write_atomically(trace_file, json.dumps(traced) + "\n")
        print(f"Routing of {counted(len(traced), 'text', 'texts')}: {trace_file}", file=sys.stderr)


def refuse(options: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raise ValueError for given flags that this kind of model does not support."""
    given = [f"--{name}" for name in names if (value := getattr(options, name)) is not None and value is not False]
    if given:
        raise ValueError(f"{' and '.join(given)} can't be used here: {why}")


def write_texts(model: SwitchPreTrainedModel, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> None:
    """Generate text: a line per text, or a table with a new column `written`.

    Raises DataError when a file or a data set can't be read; ValueError for unsupported flags.
    """
    refuse(options, TRACES, LOOK)
    length, beams = options.max_new_tokens, options.num_beams or 1
    if model.config.is_encoder_decoder:
        refuse(options, SAMPLING, "this encoder-decoder model does not sample. Only causal models (clm) do.")
        rows, texts = asked_texts(options, paired=True)
        settings = dict(batch_size=options.batch_size or 32, num_beams=beams, max_new_tokens=length)
        answers = translate(model, tokenizer, texts, **settings)
    else:
        asked = {"max_new_tokens": length} | {name: getattr(options, name) for name in SAMPLING}
        if beams > 1:
            refuse(options, SAMPLING, "they are for sampling, and --num_beams is beam search.")
            asked |= dict(num_beams=beams, do_sample=False)
        asked = {name: value for name, value in asked.items() if value is not None}
        decoding = replace(STORY, seed=options.seed, **asked)
        rows, texts = asked_texts(options)
        answers = continue_texts(model, tokenizer, texts, decoding)
    if options.save_text:
        save_lines(answers, options.save_text)
    if rows is None:
        if answers:
            print("\n".join(map(one_line, answers)))
    else:
        write_table(rows, [{"written": answer} for answer in answers], options.output)


def fill_texts(model: SwitchForMaskedLM, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> None:
    """Fill blanks: each filled text, and the candidates of each blank; or a table with the new columns `filled` and
    `candidates`.

    Raises DataError when a file can't be read; ValueError for unsupported flags.
    """
    refuse(options, TRACES, LOOK)
    refuse(options, ("num_beams", "max_new_tokens", *SAMPLING), "this model fills blanks, it does not generate text.")
    refuse(options, ("dataset",), f"its rows have no blanks. Give texts, or a --file, with {BLANK} in them.")
    filler = MaskFiller(model, tokenizer)
    rows, texts = asked_texts(options)
    fillings = [_filled(filler, text) for text in texts]
    if options.save_text:
        pairs = zip(texts, fillings, strict=True)
        save_lines([text if isinstance(one, str) else one.text for text, one in pairs], options.save_text)
    if rows is not None:
        cells = [("", "") if isinstance(one, str) else (one.text, _all_candidates(one)) for one in fillings]
        write_table(rows, [{"filled": text, "candidates": words} for text, words in cells], options.output)
        return
    for text, filling in zip(texts, fillings, strict=True):
        if isinstance(filling, str):
            print(f"{filling}\t{one_line(text)[:SHOWN_CHARACTERS]}")
            continue
        print(one_line(filling.text))
        for index, blank in enumerate(filling.blanks):
            print(f"  blank {index + 1}: {_candidates(blank)}")


def _filled(filler: MaskFiller, text: str) -> Filling | str:
    """The filled text, or an error message: a text without a blank must not stop the others."""
    try:
        return filler(text)
    except ValueError as error:
        return str(error)


def _all_candidates(filling: Filling) -> str:
    return " | ".join(map(_candidates, filling.blanks))


def _candidates(blank: Blank) -> str:
    """The most probable words of a blank, with probabilities."""
    return ", ".join(f"{word} {share:.3f}" for word, share in blank.candidates[:SHOWN_CANDIDATES])


def asked_texts(options: argparse.Namespace, paired: bool = False) -> tuple[Dataset | None, list[str]]:
    """The input texts: arguments, lines of standard input, a column of a file (with its rows), or the first rows of a
    data set, of texts or `paired`. Raises DataError when a file or a data set can't be read."""
    if options.file:
        return _table_and_texts(DataSource(options.file, text_column=options.text_column))
    if options.dataset:
        source = DataSource.of(options)
        rows = load_pairs(source) if paired else load_split(source, labelled=False)[0]
        return None, rows["text"][: options.num_samples or 20]
    return None, options.texts or lines_of_input()


def lines_of_input() -> list[str]:
    """The lines of standard input; prints a hint if there are none."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # A byte that is not UTF-8 must not stop the others.
    lines = [line.rstrip("\n") for line in sys.stdin]
    if not lines:
        print(NO_TEXT, file=sys.stderr)
    return lines


def save_lines(texts: Sequence[str], path: str) -> None:
    """Write a file with a line per text."""
    write_atomically(path, "".join(f"{one_line(text)}\n" for text in texts))
