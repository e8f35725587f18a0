"""`python -m train predict`: classify texts, generate text or fill blanks, for texts given as arguments, on standard
input, in a file, or in a data set.

Try it: python -m train predict --checkpoint assets/models/ag_news "Oil prices rose." --trace
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerFast, set_seed

from switch_model.analysis.typical_texts import TypicalTexts, unlike_in_words
from switch_model.attribution.direct import direct_attributions
from switch_model.inference.classifier import Prediction, Predictor
from switch_model.inference.decoding import MAX_NEW_TOKENS, Decoding
from switch_model.inference.mask_filler import BLANK, Blank, Filling, MaskFiller
from switch_model.inference.pipeline import AnyModel, TextPipeline, replace_surrogates
from switch_model.inference.text_generator import TextGenerator
from switch_model.inference.token_classifier import TokenClassifier
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from switch_model.storage.whole_files import write_atomically
from switch_model.token_trace import TokenTrace
from train.arguments.arguments import Arguments
from train.arguments.device import pick_device
from train.data.loading import load_split, load_training_data
from train.data.source import DataSource
from train.data.stored.digests import column
from train.data.table_output import Part
from train.data.toy import make_toy_split
from train.evaluation.asked_texts import answer_file, asked_texts, lines_into, lines_of_input, parts_and_texts, some
from train.evaluation.classification import load_rows
from train.evaluation.routing_table import routing_table, token_table, writes_table
from train.formatting import counted, one_line
from train.tasks.generation import STORY, continue_texts, translate
from train.tasks.rows import make_tokenizer

SHOWN_CHARACTERS = 60
# Printed candidates per blank.
SHOWN_CANDIDATES = 5
# Flags that only some kinds of models support.
SAMPLING = ("temperature", "top_k", "top_p")


def predict_all(predictor: Predictor, texts: Iterable[str], batch_size: int) -> Iterator[Prediction | None]:
    """One prediction per text, in order; None for a text without a token."""
    # The command line reads a byte that is not UTF-8 as a lone surrogate.
    for batch in some(map(replace_surrogates, texts), batch_size):
        readable = [index for index, text in enumerate(batch) if _has_tokens(predictor, text)]
        found = dict(zip(readable, predictor.batch([batch[index] for index in readable]), strict=True))
        yield from (found.get(index) for index in range(len(batch)))


def random_predictor(num_classes: int, vocab_size: int, seed: int, device: str | None) -> Predictor:
    """An untrained model of the default shape, with a tokenizer for the toy data."""
    arguments = Arguments.resolve({"num_classes": num_classes, "vocab_size": vocab_size})
    arguments.check()
    tokenizer = make_tokenizer(arguments, load_training_data(arguments.selection))
    set_seed(seed)
    labels = [f"class {index}" for index in range(num_classes)]
    model = SwitchForSequenceClassification(arguments.config(len(tokenizer), tokenizer.pad_token_id, labels))
    return Predictor(model.to(pick_device(device)), tokenizer)


def rows_to_show(
    checkpoint: str | None, source: DataSource, num_samples: int, toy_shape: dict[str, int] | None
) -> Iterator[tuple[str, str]]:
    """Texts and true class names of the first rows of a split. `toy_shape`: of the toy data, without a checkpoint."""
    if source.is_toy and toy_shape is not None:
        rows, names = make_toy_split(source.split, **toy_shape)
    else:
        rows, names, *_ = load_split(source) if checkpoint is None else load_rows(checkpoint, source)
    rows = rows.select(range(min(num_samples, len(rows))))
    return zip(column(rows, "text"), (names[label] for label in column(rows, "label")), strict=True)


def _has_tokens(predictor: Predictor, text: str) -> bool:
    return bool(text.strip()) and bool(predictor.tokenizer.tokenize(text[:1000]))


def classify_file(predictor: Predictor, source: DataSource, batch_size: int) -> Iterator[Part]:
    """The rows of a table, part by part, and for each the new columns: `predicted`, and `p(class)` for each class.

    Raises:
        DataError: when the file can't be read, or its column of texts is ambiguous.
    """
    nothing = dict.fromkeys(["predicted", *(f"p({label})" for label in predictor.model.config.labels)])
    for rows, texts in parts_and_texts(source):
        added = []
        for prediction in predict_all(predictor, texts, batch_size):
            scores = {} if prediction is None else prediction.scores
            own = {"predicted": prediction.label} if prediction else {}
            added.append(nothing | own | {f"p({label})": round(score, 4) for label, score in scores.items()})
        yield rows, added


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
    texts: Iterable[tuple[str, str | None]],
    batch_size: int,
    trace: bool,
    trace_file: str | None,
    typical: TypicalTexts | None = None,
) -> None:
    """A line per text: class and probability (with its true class: true, predicted); with `trace` also the routing.

    Args:
        texts: each with its true class, if known.
        typical: bounds of the training texts: a note on standard error for each text beyond them.
    """
    traced = []
    for pairs in some(texts, batch_size):
        predictions = predict_all(predictor, [text for text, _ in pairs], batch_size)
        for (text, label), prediction in zip(pairs, predictions, strict=True):
            said = "no text" if prediction is None else f"{prediction.label} {prediction.scores[prediction.label]:.3f}"
            cells = [*([] if label is None else [label]), said, one_line(text)[:SHOWN_CHARACTERS]]
            print("\t".join(map(one_line, cells)))
            if typical and (unlike := typical.reasons(predictor.read(text).ids, predictor.tokenizer)):
                print(f"note: “{cells[-1]}” is {unlike_in_words(unlike)}", file=sys.stderr)
            wrote = {}
            if prediction is not None and trace:
                print(routing_table(prediction))
            if prediction is not None and (trace or trace_file):
                wrote = _writes(predictor, prediction, [None], trace)
            if trace_file:
                traced.append(as_json(text, prediction) | wrote)
    _write_traces(traced, trace_file)


def refuse(options: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raise ValueError for given flags that this kind of model does not support."""
    given = [f"--{name}" for name in names if (value := getattr(options, name)) is not None and value is not False]
    if given:
        raise ValueError(f"{' and '.join(given)} can't be used here: {why}")


def write_texts(model: AnyModel, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> None:
    """Generate text: a line per text, with its routing if that is asked for, or a table with a new column `written`.

    Raises DataError when a file or a data set can't be read; ValueError for unsupported flags.
    """
    traced = _is_traced(options)
    length, beams, has_encoder = options.max_new_tokens, options.num_beams or 1, model.config.is_encoder_decoder
    if has_encoder:
        refuse(options, SAMPLING, "this encoder-decoder model does not sample. Only causal models (clm) do.")
        asked = {"num_beams": beams, "do_sample": False, "top_k": 0, "max_new_tokens": MAX_NEW_TOKENS}
    else:
        asked = {"seed": options.seed} | {name: getattr(options, name) for name in SAMPLING}
        if beams > 1:
            refuse(options, SAMPLING, "they are for sampling, and --num_beams is beam search.")
            asked |= dict(num_beams=beams, do_sample=False)
    if length is not None:
        asked["max_new_tokens"] = length
    asked = {name: value for name, value in asked.items() if value is not None}

    def answers_to(texts: list[str], before: int) -> list[str]:
        if traced:
            return _written_with_routing(model, tokenizer, texts, replace(STORY, **asked), options)
        if has_encoder:
            settings = dict(batch_size=options.batch_size or 32, num_beams=beams, max_new_tokens=length)
            return translate(model, tokenizer, texts, **settings)
        return continue_texts(model, tokenizer, texts, replace(STORY, **asked | {"seed": options.seed + before}))

    if options.file:
        return answer_file(
            options,
            lambda texts, before: [{"written": answer} for answer in answers_to(texts, before)],
            lambda text, own: own["written"],
        )
    done = 0
    with lines_into(options.save_text) as write_line:
        asked_for = asked_texts(options, has_encoder)
        for texts in [list(asked_for)] if traced else some(asked_for):
            for answer in answers_to(texts, done):
                write_line(answer)
                if not traced:
                    print(one_line(answer))
            done += len(texts)


def _written_with_routing(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    decoding: Decoding,
    options: argparse.Namespace,
) -> list[str]:
    """The generated texts, each printed with its routing."""
    generator, answers, traced = TextGenerator(model, tokenizer), [], []
    for index, text in enumerate(texts):
        found = generator.write(text, replace(decoding, seed=decoding.seed + index))
        answers.append(found.text)
        print(one_line(found.text))
        if options.trace:
            print("\n".join(token_table(one.tokens, one.routing) for one in found.traces))
        followed = range(found.answer.written - 1, len(found.answer.tokens) - 1)
        wrote = _writes(generator, found, followed, options.trace)
        traces = [_trace_as_json(one) for one in found.traces]
        traced.append({"text": text, "written": found.text, "traces": traces, **wrote})
    _write_traces(traced, options.trace_file)
    return answers


def label_tokens(classifier: TokenClassifier, options: argparse.Namespace) -> None:
    """Classify tokens: a line per text and one per token with its class and probability, then the routing if that is
    asked for. Raises ValueError for unsupported flags."""
    refuse(options, ("file", "dataset"), "this model gives classes to tokens. Give it texts.")
    refuse(options, ("num_beams", "max_new_tokens", "save_text", *SAMPLING), "this model writes no text.")
    traced = []
    for text in map(replace_surrogates, options.texts or lines_of_input()):
        found = classifier(text)
        print(one_line(text)[:SHOWN_CHARACTERS])
        shares = found.scores.amax(-1).tolist()
        for token, label, share in zip(found.tokens, found.labels, shares, strict=True):
            print(f"  {one_line(token).strip()[:16]:16} {one_line(label)} {share:.3f}")
        if options.trace:
            print(token_table(found.tokens, found.routing))
        wrote = _writes(classifier, found, range(len(found.tokens)), options.trace) if _is_traced(options) else {}
        traced.append({"text": text, "labels": found.labels, **_trace_as_json(found.trace), **wrote})
    _write_traces(traced, options.trace_file)


def _is_traced(options: argparse.Namespace) -> bool:
    return bool(options.trace or options.trace_file)


def _writes(pipeline: TextPipeline, answer: Any, tokens: Sequence[int | None], shown: bool) -> dict[str, Any]:
    """What each expert writes, for JSON: a list under "attribution"; `shown` prints it too. Nothing where there are
    votes; where it can't be told, standard error says why."""
    if not answer.routing or not len(tokens) or getattr(answer, "votes", None) is not None:
        return {}
    try:
        found = direct_attributions(pipeline, answer, tokens)
    except ValueError as error:
        print(f"note: {error}", file=sys.stderr)
        return {}
    if shown:
        print(writes_table(found, answer.traces[-1].tokens))
    return {"attribution": [one.to_dict() for one in found]}


def _trace_as_json(trace: TokenTrace) -> dict[str, Any]:
    return {"tokens": trace.tokens, "routing": [record.to_dict() for record in trace.routing]}


def _write_traces(traced: list[dict[str, Any]], path: str | None) -> None:
    if path:
        write_atomically(path, json.dumps(traced) + "\n")
        print(f"Routing of {counted(len(traced), 'text', 'texts')}: {path}", file=sys.stderr)


def fill_texts(model: SwitchForMaskedLM, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> None:
    """Fill blanks: each filled text, the candidates of each blank, and the routing if that is asked for; or a table
    with the new columns `filled` and `candidates`.

    Raises DataError when a file can't be read; ValueError for unsupported flags.
    """
    refuse(options, ("num_beams", "max_new_tokens", *SAMPLING), "this model fills blanks, it does not generate text.")
    refuse(options, ("dataset",), f"its rows have no blanks. Give texts, or a --file, with {BLANK} in them.")
    filler = MaskFiller(model, tokenizer)
    if options.file:
        return answer_file(
            options,
            lambda texts, _: [_filled_cells(_filled(filler, text)) for text in texts],
            lambda text, own: own["filled"] or text,
        )
    traced = []
    with lines_into(options.save_text) as write_line:
        for text in asked_texts(options):
            found = _print_filling(filler, text, options)
            write_line(found["filled"] or text)
            traced += [found] if options.trace_file else []
    _write_traces(traced, options.trace_file)


def _print_filling(filler: MaskFiller, text: str, options: argparse.Namespace) -> dict[str, Any]:
    """Print the filled text and its candidates, and the routing if that is asked for; all of it for JSON."""
    filling = _filled(filler, text)
    if isinstance(filling, str):
        print(f"{filling}\t{one_line(text)[:SHOWN_CHARACTERS]}")
        return {"text": text, "filled": None}
    print(one_line(filling.text))
    for index, blank in enumerate(filling.blanks):
        print(f"  blank {index + 1}: {_candidates(blank)}")
    if options.trace:
        print(token_table(filling.answer.tokens, filling.routing))
    places = [blank.token for blank in filling.blanks]
    wrote = _writes(filler, filling, places, options.trace) if _is_traced(options) else {}
    return {"text": text, "filled": filling.text, **_trace_as_json(filling.answer), **wrote}


def _filled(filler: MaskFiller, text: str) -> Filling | str:
    """The filled text, or an error message: a text without a blank must not stop the others."""
    try:
        return filler(text)
    except ValueError as error:
        return str(error)


def _filled_cells(filling: Filling | str) -> dict[str, Any]:
    if isinstance(filling, str):
        return {"filled": "", "candidates": ""}
    return {"filled": filling.text, "candidates": " | ".join(map(_candidates, filling.blanks))}


def _candidates(blank: Blank) -> str:
    """The most probable words of a blank, with probabilities."""
    return ", ".join(f"{word} {share:.3f}" for word, share in blank.candidates[:SHOWN_CANDIDATES])
