"""A view to keep as JSON that opens again without the model.

Try it: read_record(json.dumps(record_of(view, "AG News")).encode())
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch

from switch_model import Filling, Generation, Prediction, Routing
from switch_model.attribution.direct import DirectAttribution
from switch_model.counterfactuals import WhatIf
from switch_model.inference.mask_filler import Blank
from switch_model.inference.pipeline import MAX_CHARACTERS
from switch_model.token_trace import TokenTrace
from switch_model.topk_routing import record_of_dict
from ui.sharing.link import VERSION, changes_from_json, changes_to_json, check_version, decoding_from_json
from ui.views.view import FilledView, PredictionView, TokenImportance, View, WrittenView

# Bytes of a record's file: a text of some pages fits in.
MAX_RECORD = 50_000_000


class _Form(NamedTuple):
    """How one kind of view is written and read.

    Attributes:
        view: its class.
        answer: the key that its answer stands under.
        write, read: the answer as plain data, and back; the text is what was asked.
        write_own, read_own: what only this kind of view has, and a view with it.
    """

    view: type[View]
    answer: str
    write: Callable[[Any], dict[str, Any]]
    read: Callable[[dict[str, Any], str], Any]
    write_own: Callable[[Any], dict[str, Any]]
    read_own: Callable[[Any, dict[str, Any]], View]


def record_of(
    view: View, title: str, answer: WhatIf | None = None, attribution: DirectAttribution | str | None = None
) -> dict[str, Any]:
    """Everything on screen as plain data: text, answer before and after the changes, the routing records, votes (T, C)
    and bias (C,) where the model has them (classes as the scores have them), and what matters once it was measured.

    Args:
        answer: what the card “what if” holds of the token that is looked at; None = nothing.
        attribution: what each part wrote there, kept under "attribution"; anything else = nothing.
    """
    kind = next(kind for kind, form in _FORMS.items() if form.view is type(view))
    form, (token, layer) = _FORMS[kind], view.place
    record = {
        "v": VERSION,
        "model": title,
        "text": view.text,
        "token": token,
        "layer": layer,
        **changes_to_json(view.changes),
        form.answer: form.write(view.answer),
        **form.write_own(view),
    }
    if kind is not None:
        record["kind"] = kind
    if view.changed:
        record["before"] = form.write(view.base)
    if answer is not None:
        record["what_if"] = {"probability": answer.probability, "labels": answer.labels}
    if isinstance(attribution, DirectAttribution):
        record["attribution"] = attribution.to_dict()
    return record


def read_record(raw: bytes) -> View:
    """The view that `record_of` wrote, without a model: its key is "", the model's title is in `saved_from`.

    Raises ValueError for what is no such record.
    """
    if len(raw) > MAX_RECORD:
        raise ValueError(f"This file is larger than {MAX_RECORD / 1e6:g} MB: it is not a record of one text.")
    try:
        content = json.loads(raw)
        check_version(content)
        form, text = _FORMS[content.get("kind")], str(content["text"])[:MAX_CHARACTERS]
        answer = form.read(content[form.answer], text)
        base = form.read(content["before"], text) if "before" in content else answer
        if _shape(base) != _shape(answer):
            raise ValueError("before and after do not fit together")
        view = replace(
            form.view.showing("", text, answer),
            base=base,
            changes=changes_from_json(content),
            saved_from=str(content["model"])[:200] or "a model",
        )
        view = form.read_own(view.looking_at(int(content["token"]), int(content["layer"])), content)
        if "attribution" in content:
            found = DirectAttribution.from_dict(content["attribution"])
            view = replace(view, attributions={view.place: found})
        return view
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError("This is not a record of this page: save one with “Record (JSON)”, and open that.") from error


def _shape(answer: Prediction | Generation | Filling) -> list[Any]:
    """What does not change with the routing: layers and experts, and the tokens of what was read."""
    layers = [(record.name, record.num_experts) for record in answer.routing]
    read = [len(trace.tokens) for trace in answer.traces if trace.stack == "encoder"]
    return [layers, read, len(getattr(answer, "blanks", ()))]


# -- one stack --------------------------------------------------------------------------------------------------------


def _trace_to_json(trace: TokenTrace) -> dict[str, Any]:
    plain = {name: value for name, value in vars(trace).items() if name not in ("routing", "ids")}
    return plain | {"routing": [record.to_dict() for record in trace.routing]}


def _trace_from_json(content: dict[str, Any]) -> TokenTrace:
    tokens = [str(token) for token in content["tokens"]]
    routing = tuple(record_of_dict(record) for record in content["routing"])
    trace = TokenTrace(
        stack=str(content["stack"]),
        text=str(content["text"]),
        tokens=tokens,
        offsets=[(int(start), int(end)) for start, end in content["offsets"]],
        unknown=[bool(one) for one in content["unknown"]],
        truncated=bool(content["truncated"]),
        routing=routing,
        written=int(content["written"]),
    )
    fits = (
        tokens
        and trace.stack in ("encoder", "decoder")
        and len(tokens) == len(trace.offsets) == len(trace.unknown)
        and 0 <= trace.written <= len(tokens)
        and all(tuple(record.expert.shape) == (1, len(tokens)) and bool(record.mask.all()) for record in routing)
        and all(int(record.expert.min()) >= 0 and int(record.expert.max()) < record.num_experts for record in routing)
        and len({record.num_experts for record in routing}) <= 1
    )
    if not fits:
        raise ValueError("the parts of a stack do not fit together")
    return trace


# -- a class ----------------------------------------------------------------------------------------------------------


def _prediction_to_json(prediction: Prediction) -> dict[str, Any]:
    trace = _trace_to_json(prediction.trace)
    plain = {key: trace[key] for key in ("tokens", "offsets", "unknown", "truncated", "routing")}
    return {"label": prediction.label, "scores": prediction.scores} | plain | prediction.votes_to_dict()


def _prediction_from_json(content: dict[str, Any], text: str) -> Prediction:
    trace = _trace_from_json(content | {"stack": "encoder", "text": text, "written": len(content["tokens"])})
    scores = {str(label): float(score) for label, score in content["scores"].items()}
    if content["label"] not in scores or not all(0.0 <= score <= 1.0 for score in scores.values()):
        raise ValueError("the classes do not fit the prediction")
    votes, bias = _votes_from_json(content, trace.tokens, scores, trace.routing)
    return Prediction(str(content["label"]), scores, trace, votes, bias)


def _own_of_prediction(view: PredictionView) -> dict[str, Any]:
    own: dict[str, Any] = {"true_label": view.true_label}
    if view.importance is not None:
        own["matters"] = {"experts": view.importance.experts.tolist(), "tokens": view.importance.tokens.tolist()}
    return own


def _with_own_of_prediction(view: PredictionView, content: dict[str, Any]) -> PredictionView:
    label, prediction = content.get("true_label"), view.prediction
    found = _importance_from_json(content["matters"], prediction) if "matters" in content else None
    answers = {}
    if "what_if" in content:
        answers[view.place] = _answer_from_json(content["what_if"], prediction, *view.place)
    return replace(view, true_label=None if label is None else str(label), importance=found, answers=answers)


def _importance_from_json(content: dict[str, Any], prediction: Prediction) -> TokenImportance:
    experts = [[float(change) for change in changes_E] for changes_E in content["experts"]]
    tokens = [float(change) for change in content["tokens"]]
    fits = (
        experts
        and [len(changes_E) for changes_E in experts] == [record.num_experts for record in prediction.routing]
        and len(tokens) == len(prediction.tokens)
        and all(-1.0 <= change <= 1.0 for change in itertools.chain(tokens, *experts))
    )
    if not fits:
        raise ValueError("the attribution does not fit the prediction")
    return TokenImportance(prediction.label, torch.tensor(experts), torch.tensor(tokens))


def _answer_from_json(content: dict[str, Any], prediction: Prediction, token: int, layer: int) -> WhatIf:
    record = prediction.routing[layer]
    probability = [None if one is None else float(one) for one in content["probability"]]
    labels = [None if one is None else str(one) for one in content["labels"]]
    fits = (
        len(probability) == len(labels) == record.num_experts
        and all((one is None) == (label is None) for one, label in zip(probability, labels, strict=True))
        and all(one is None or 0.0 <= one <= 1.0 for one in probability)
        and all(label is None or label in prediction.scores for label in labels)
    )
    if not fits:
        raise ValueError("what other experts would have made of the token does not fit the prediction")
    return WhatIf(prediction.label, int(record.expert[0, token]), probability, labels)


def _votes_from_json(
    content: dict[str, Any], tokens: list[str], scores: dict[str, float], routing: tuple[Routing, ...]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(T, C) votes and (C,) bias, None and None where there are none. Raises ValueError where they fit nothing else."""
    if "votes" not in content:
        return None, None
    votes = torch.tensor(content["votes"], dtype=torch.float32)
    bias = torch.tensor(content["bias"], dtype=torch.float32)
    fits = (
        tuple(votes.shape) == (len(tokens), len(scores))
        and tuple(bias.shape) == (len(scores),)
        and bool(votes.isfinite().all() and bias.isfinite().all())
        and any(not record.name.endswith(".attention") for record in routing)
    )
    if not fits:
        raise ValueError("the votes do not fit the prediction")
    return votes, bias


# -- a text that was written, or whose blanks were filled -------------------------------------------------------------


def _written_to_json(written: Generation) -> dict[str, Any]:
    plain = {key: getattr(written, key) for key in ("text", "next_tokens", "chances", "log_probability", "finished")}
    source = written.source and _trace_to_json(written.source)
    return plain | {"source": source, "answer": _trace_to_json(written.answer)}


def _written_from_json(content: dict[str, Any], text: str) -> Generation:
    answer = _trace_from_json(content["answer"])
    source = None if content["source"] is None else _trace_from_json(content["source"])
    chances = [None if chance is None else float(chance) for chance in content["chances"]]
    next_tokens = [_words(words) for words in content["next_tokens"]]
    if not len(chances) == len(next_tokens) == len(answer.tokens) or None in chances[:-1]:
        raise ValueError("the next tokens do not fit the text")
    log_probability = float(content["log_probability"])
    if not -1e6 <= log_probability <= 0:
        raise ValueError("the probability of the text is none")
    finished = bool(content["finished"])
    return Generation(str(content["text"]), source, answer, next_tokens, chances, log_probability, finished)


def _filled_to_json(filled: Filling) -> dict[str, Any]:
    blanks = [{"token": blank.token, "candidates": blank.candidates} for blank in filled.blanks]
    return {"text": filled.text, "blanks": blanks, "answer": _trace_to_json(filled.answer)}


def _filled_from_json(content: dict[str, Any], text: str) -> Filling:
    answer = _trace_from_json(content["answer"])
    blanks = [Blank(int(blank["token"]), _words(blank["candidates"])) for blank in content["blanks"]]
    if not blanks or not all(blank.candidates and 0 <= blank.token < len(answer.tokens) for blank in blanks):
        raise ValueError("the blanks do not fit the text")
    return Filling(str(content["text"]), blanks, answer)


def _words(values: list[Any]) -> list[tuple[str, float]]:
    words = [(str(name), float(share)) for name, share in values]
    if not all(0 <= share <= 1 for _, share in words):
        raise ValueError("a probability is none")
    return words


# By what a record says of its kind; one of a class says nothing.
_FORMS: dict[str | None, _Form] = {
    None: _Form(
        PredictionView,
        "prediction",
        _prediction_to_json,
        _prediction_from_json,
        _own_of_prediction,
        _with_own_of_prediction,
    ),
    "written": _Form(
        WrittenView,
        "output",
        _written_to_json,
        _written_from_json,
        lambda view: {"decoding": asdict(view.decoding)},
        lambda view, content: replace(view, decoding=decoding_from_json(content["decoding"])),
    ),
    "filled": _Form(
        FilledView,
        "output",
        _filled_to_json,
        _filled_from_json,
        lambda view: {"decoding": asdict(view.decoding)},
        lambda view, content: view,
    ),
}
