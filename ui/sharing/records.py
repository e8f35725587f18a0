"""A view to keep: as JSON that opens again without the model, and as a table.

Try it: read_record(json.dumps(record_of(view, "AG News")).encode())
"""

import csv
import io
import itertools
import json
from dataclasses import replace
from typing import Any

import torch

from switch_model import Prediction, Routing
from switch_model.counterfactuals import WhatIf
from switch_model.inference.pipeline import MAX_CHARACTERS
from switch_model.inference.traces import TokenTrace
from ui.sharing.changes import VERSION, changes_from_json, changes_to_json, check_version
from ui.views.output_view import OutputView
from ui.views.view import Matters, View

# Bytes of a record's file: a text of some pages fits in.
MAX_RECORD = 50_000_000


def record_of(view: View, title: str, answer: WhatIf | None = None) -> dict[str, Any]:
    """Everything on screen as plain data: text, prediction before and after the changes, the routing records, votes
    (T, C) and bias (C,) where the model has them (classes as the scores have them), and what matters once it was
    measured.

    Args:
        answer: what the card “what if” holds of the token that is looked at; None = nothing.
    """
    record = {
        "v": VERSION,
        "model": title,
        "text": view.text,
        "token": view.token,
        "layer": view.layer,
        "true_label": view.true_label,
        **changes_to_json(view.changes),
        "prediction": _prediction_to_json(view.prediction),
    }
    if view.changed:
        record["before"] = _prediction_to_json(view.base)
    if view.matters is not None:
        record["matters"] = {"experts": view.matters.experts.tolist(), "tokens": view.matters.tokens.tolist()}
    if answer is not None:
        record["what_if"] = {"probability": answer.probability, "labels": answer.labels}
    return record


def read_record(raw: bytes) -> tuple[View | OutputView, str]:
    """The view that `record_of` wrote, without a model (its key is ""), and the model's title.

    Raises ValueError for what is no such record.
    """
    if len(raw) > MAX_RECORD:
        raise ValueError(f"This file is larger than {MAX_RECORD / 1e6:g} MB: it is no record of one text.")
    try:
        content = json.loads(raw)
        check_version(content)
        if "kind" in content:
            from ui.sharing.export import read_output

            return read_output(content)
        text = str(content["text"])[:MAX_CHARACTERS]
        prediction = _prediction_from_json(content["prediction"], text)
        base = _prediction_from_json(content["before"], text) if "before" in content else prediction
        if [record.expert.shape for record in base.routing] != [record.expert.shape for record in prediction.routing]:
            raise ValueError("before and after do not fit together")
        label = content.get("true_label")
        view = View(
            model="",
            text=text,
            base=base,
            prediction=prediction,
            token=0,
            layer=0,
            true_label=None if label is None else str(label),
            changes=changes_from_json(content),
            matters=_matters_from_json(content["matters"], prediction) if "matters" in content else None,
        ).looking_at(int(content["token"]), int(content["layer"]))
        if "what_if" in content:
            view = replace(view, answers={view.place: _answer_from_json(content["what_if"], prediction, *view.place)})
        return view, str(content["model"])[:200]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError("This is no record of this page: save one with “Record (JSON)”, and open that.") from error


def _matters_from_json(content: dict[str, Any], prediction: Prediction) -> Matters:
    experts = [[float(change) for change in changes_E] for changes_E in content["experts"]]
    tokens = [float(change) for change in content["tokens"]]
    fits = (
        experts
        and [len(changes_E) for changes_E in experts] == [record.num_experts for record in prediction.routing]
        and len(tokens) == len(prediction.tokens)
        and all(-1.0 <= change <= 1.0 for change in itertools.chain(tokens, *experts))
    )
    if not fits:
        raise ValueError("what matters does not fit the prediction")
    return Matters(prediction.label, torch.tensor(experts), torch.tensor(tokens))


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


def trace_of(prediction: Prediction) -> list[dict[str, Any]]:
    """A routing record for each sparse layer, as Routing.to_dict() writes it.

    Where a classifier reads its experts alone, the record of the layer that votes has "classes" (C names), "votes" (a
    list of C numbers for each token) and "bias" (C numbers) too: votes and bias add up to the logits.
    """
    records = [record.to_dict() for record in prediction.routing]
    if prediction.votes is not None:
        voting = records[prediction.routing.index(prediction.voters)]
        voting |= {"classes": list(prediction.scores), **prediction.votes_to_dict()}
    return records


def routing_csv(view: View) -> str:
    """A row per token and sparse layer: expert, gate, place in the queue, capacity, and whether it was dropped.

    Where a classifier reads its experts alone, a column "vote(class)" for each class follows: filled in the rows of the
    layer that votes, for tokens that were not dropped. A column and the classifier's bias add up to the class's logit.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    prediction = view.prediction
    voters = None if prediction.votes is None else prediction.voters
    names = [] if voters is None else [f"vote({label})" for label in prediction.scores]
    writer.writerow(["position", "token", "layer", "expert", "gate", "slot", "capacity", "dropped", *names])
    for record in prediction.routing:
        capacity = int(record.capacity)
        columns = (record.expert[0], record.gate[0], record.slot[0], record.dropped[0])
        for index, values in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            expert, gate, slot, dropped = values
            votes = [""] * len(names)
            if record is voters and not dropped:
                votes = [f"{vote:.6f}" for vote in prediction.votes[index].tolist()]
            row = [index, prediction.tokens[index], record.name, expert, f"{gate:.6f}", slot, capacity, int(dropped)]
            writer.writerow([*row, *votes])
    return text.getvalue()


def _prediction_to_json(prediction: Prediction) -> dict[str, Any]:
    plain = {key: getattr(prediction, key) for key in ("label", "scores", "tokens", "offsets", "unknown", "truncated")}
    return plain | {"routing": [record.to_dict() for record in prediction.routing], **prediction.votes_to_dict()}


def _prediction_from_json(content: dict[str, Any], text: str) -> Prediction:
    tokens = [str(token) for token in content["tokens"]]
    routing = tuple(Routing.from_dict(record) for record in content["routing"])
    offsets = [(int(start), int(end)) for start, end in content["offsets"]]
    unknown = [bool(one) for one in content["unknown"]]
    scores = {str(label): float(score) for label, score in content["scores"].items()}
    experts = {record.num_experts for record in routing}
    fits = (
        tokens
        and len(tokens) == len(offsets) == len(unknown)
        and all(tuple(record.expert.shape) == (1, len(tokens)) and bool(record.mask.all()) for record in routing)
        and all(int(record.expert.min()) >= 0 and int(record.expert.max()) < record.num_experts for record in routing)
        and all(0.0 <= score <= 1.0 for score in scores.values())
        and content["label"] in scores
        and len(experts) <= 1
    )
    if not fits:
        raise ValueError("the parts of the prediction do not fit together")
    votes, bias = _votes_from_json(content, tokens, scores, routing)
    truncated = bool(content["truncated"])
    trace = TokenTrace("encoder", text, tokens, offsets, unknown, truncated, routing, len(tokens))
    return Prediction(str(content["label"]), scores, trace, votes, bias)


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
