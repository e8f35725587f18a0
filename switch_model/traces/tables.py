"""Routing as rows: CSV with a line per assignment, JSON lines with one per token and layer (docs/trace-format.md).

llama.cpp's tracer writes `layer,expert` alone, in the order in which the graph computed them: for each batch of tokens
layer by layer, and in a layer token by token with k rows each.
Try it: from_csv("layer,expert\\n0,3\\n1,2\\n0,1\\n1,2\\n", top_k=1)
"""

import csv
import itertools
import json
import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from switch_model.traces.trace import MAX_ASSIGNMENTS, RoutingTrace, TraceError, joined, one_text, refuse_unwritten

# Names that columns have in tables of others.
_COLUMNS = {
    "text": ("text", "turn", "sequence", "prompt", "request"),
    "position": ("position", "token_index", "token_idx", "step"),
    "choice": ("choice", "slot", "rank", "k"),
    "weight": ("weight", "gate", "prob"),
    "token": ("token", "piece"),
}
FORMAT, VERSION = "routing-trace", 1


def from_csv(text: str, top_k: int | None = None) -> tuple[RoutingTrace, int | None]:
    """(a trace, the number of experts where a comment "# n_expert=128" says it) of a table with a header.

    Args:
        top_k: experts per token, for a table without positions.

    Raises:
        TraceError: for a table without the columns layer and expert, and for values that do not fit together.
    """
    lines = text.splitlines()
    said = _comments(line for line in lines if line.startswith("#"))
    rows = list(csv.reader(line for line in lines if line.strip() and not line.startswith("#")))
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if "layer" not in header or "expert" not in header:
        raise TraceError("A table of routing needs a header with the columns layer and expert: layer,expert")
    if len(rows) - 1 > MAX_ASSIGNMENTS:
        raise TraceError(f"{len(rows) - 1:,} rows are too many; at most {MAX_ASSIGNMENTS:,} are read.")
    where = {
        key: next((header.index(name) for name in names if name in header), None) for key, names in _COLUMNS.items()
    }
    top_k = top_k or said.get("n_expert_used")
    found = _Rows()
    for number, row in enumerate(rows[1:], 2):
        try:
            entry = {key: row[index].strip() for key, index in where.items() if index is not None}
            found.add(
                row[header.index("layer")].strip(),
                int(row[header.index("expert")]),
                entry,
            )
        except (ValueError, IndexError) as error:
            raise TraceError(f"Row {number} of the table is not a layer and a whole number for its expert.") from error
    trace = found.placed() if where["position"] is not None else found.in_order(top_k)
    return trace, said.get("n_expert")


def from_json_lines(text: str) -> tuple[RoutingTrace, int | None]:
    """(a trace, the number of experts where the head says it) of lines {"layer", "experts", …}. Raises TraceError."""
    found, num_experts = _Rows(), None
    counts: dict[Hashable, int] = {}
    placed: set[Hashable] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if "format" in entry and "experts" not in entry:
                num_experts = _experts_of_head(entry)
                continue
            layer, experts = str(entry["layer"]), entry["experts"]
            experts = [experts] if isinstance(experts, int) else list(experts)
            weights = [None] * len(experts) if entry.get("weights") is None else entry["weights"]
            weights = [weights] if isinstance(weights, int | float) else list(weights)
            if len(weights) != len(experts):
                raise TraceError(
                    f"Line {number} has {len(experts)} experts and {len(weights)} weights: give one weight for each "
                    "expert, in the same order, or no weights at all."
                )
            given = {key: entry[key] for key in ("text", "position", "token") if entry.get(key) is not None}
            place = (given.get("text"), given.get("position"), layer)
            if "position" in given and place in placed:
                raise TraceError(
                    f"Line {number} tells of position {given['position']} of a text in {layer}, and so does an earlier "
                    "line: give each text a number of its own (text), or write the file once."
                )
            placed.add(place)
            if "position" not in given:  # Lines of one layer follow each other as the tokens do.
                key = given.get("text"), layer
                given["position"] = counts[key] = counts.get(key, -1) + 1
            for choice, (expert, weight) in enumerate(zip(experts, weights, strict=True)):
                extra = {"choice": choice} | ({} if weight is None else {"weight": weight})
                found.add(layer, _whole(expert), given | extra)
        except TraceError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TraceError(
                f"Line {number} is not as it should be: "
                '{"layer": 3, "experts": [5, 1], "weights": [0.7, 0.3], "token": "Once", "position": 0, "text": 0}, '
                "of which layer and experts are needed."
            ) from error
    return found.placed(), num_experts


def _experts_of_head(head: Mapping[str, Any]) -> int | None:
    """The number of experts that the first line says. Raises TraceError for another format, or a later version."""
    version = head.get("version", VERSION)
    if head["format"] != FORMAT or version != VERSION or isinstance(version, bool):
        raise TraceError(
            f"The file is of the format {head['format']!r}, version {version!r}; {FORMAT!r}, version {VERSION}, is "
            "read. Write it in that version, or read it with a newer version of this package."
        )
    return None if head.get("num_experts") is None else int(head["num_experts"])


def to_json_lines(trace: RoutingTrace) -> Iterator[str]:
    """The lines of a trace in this project's own format, head first."""
    yield json.dumps({"format": FORMAT, "version": VERSION, "num_experts": trace.num_experts})
    for token, layer in itertools.product(range(trace.experts.shape[1]), range(len(trace.layers))):
        line: dict[str, Any] = {"text": int(trace.text[token]), "position": int(trace.position[token])}
        if trace.tokens:
            line["token"] = trace.tokens[token]
        line |= {"layer": trace.layers[layer], "experts": trace.experts[layer, token].tolist()}
        if trace.weights is not None:
            line["weights"] = [round(weight, 6) for weight in trace.weights[layer, token].tolist()]
        yield json.dumps(line, ensure_ascii=False)


# Its place among the choices of a token, the expert, and its weight, if any.
_Choice = tuple[float, int, float | None]


class _Rows:
    """Assignments one by one, then put where they belong."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, int, Mapping[str, Any]]] = []

    def add(self, layer: str, expert: int, entry: Mapping[str, Any]) -> None:
        self._rows.append((layer, expert, entry))

    def placed(self) -> RoutingTrace:
        """Rows with positions. Every token needs the same number of experts in every layer."""
        texts: dict[Hashable, dict[tuple[int, str], list[_Choice]]] = {}
        names: dict[Hashable, dict[int, str]] = {}
        for order, (layer, expert, entry) in enumerate(self._rows):
            position, text = _number(entry["position"]), entry.get("text", 0)
            choice = _real(entry.get("choice", order), "choice")
            weight = None if entry.get("weight") in (None, "") else _real(entry["weight"], "weight")
            texts.setdefault(text, {}).setdefault((position, layer), []).append((choice, expert, weight))
            if "token" in entry:
                names.setdefault(text, {})[position] = str(entry["token"])
        if not texts:
            raise TraceError("The file has no row: nothing was captured.")
        return joined([_one(cells, names.get(text, {}), str(text)) for text, cells in texts.items()])

    def in_order(self, top_k: int | None) -> RoutingTrace:
        """Rows without positions, in llama.cpp's order."""
        blocks = [
            (layer, [row[1] for row in rows]) for layer, rows in itertools.groupby(self._rows, lambda row: row[0])
        ]
        if not blocks:
            raise TraceError("The table has no row: nothing was captured.")
        refuse_unwritten(np.array([expert for _, expert, _ in self._rows]))
        layers = list(dict.fromkeys(layer for layer, _ in blocks))
        per_token = top_k or math.gcd(*(len(experts) for _, experts in blocks))
        whole = all(len(experts) % per_token == 0 for _, experts in blocks)
        # Two choices of one token are never the same expert; where they would be, `per_token` covers several tokens.
        distinct = whole and all(
            len(set(experts[start : start + per_token])) == per_token
            for _, experts in blocks
            for start in range(0, len(experts), per_token)
        )
        if not whole or not distinct or (len(blocks) == 1 and not top_k):
            said = f", and {top_k} per token do not fit" if top_k else ""
            raise TraceError(
                f"The table does not say which rows are one token's{said}: give the model's number of experts per "
                "token (top k), or a column position."
            )
        by_layer = {layer: [e for name, experts in blocks if name == layer for e in experts] for layer in layers}
        if len({len(experts) for experts in by_layer.values()}) > 1:
            raise TraceError("The layers of the table have different numbers of rows: the capture was cut off.")
        return one_text(
            np.array(list(by_layer.values())).reshape(len(layers), -1, per_token).swapaxes(0, 1), None, layers
        )


def _one(cells: Mapping[tuple[int, str], list[_Choice]], names: Mapping[int, str], text: str) -> RoutingTrace:
    layers = sorted({layer for _, layer in cells}, key=_by_number)
    positions = sorted({position for position, _ in cells})
    top_k = len(next(iter(cells.values())))
    for (position, layer), cell in cells.items():
        if len({choice for choice, _, _ in cell}) < len(cell):
            raise TraceError(
                f"Position {position} of text {text} has one choice twice in {layer}: two texts have the same number, "
                "or the capture was written twice. Give each text a number of its own."
            )
    if len(cells) != len(layers) * len(positions) or any(len(cell) != top_k for cell in cells.values()):
        raise TraceError(
            "Not every token has the same number of experts in every layer: the file is cut off, or two texts have the "
            "same number."
        )
    ordered = [[sorted(cells[position, layer], key=lambda one: one[0]) for layer in layers] for position in positions]
    experts = np.array([[[expert for _, expert, _ in cell] for cell in token] for token in ordered])
    weights = [[[weight for _, _, weight in cell] for cell in token] for token in ordered]
    given = [weight is not None for token in weights for cell in token for weight in cell]
    if any(given) and not all(given):
        raise TraceError(
            f"Of text {text} some choices have weights and others none: give a weight for each, or none at all."
        )
    tokens = [names[position] for position in positions] if len(names) == len(positions) else None
    trace = one_text(experts, np.array(weights, dtype=np.float32) if all(given) else None, layers, tokens=tokens)
    missing = positions[-1] + 1 - len(positions)
    first = next((place for place, position in enumerate(positions) if place != position), 0)
    note = (
        f"Text {text} lacks {missing:,} of the positions up to {positions[-1]:,}, {first:,} the first of them: the "
        "capture left them out (a server's prefix cache does). The tokens around a gap count as no neighbours."
    )
    return replace(trace, position=np.array(positions), notes=(note,) if missing else ())


def _by_number(layer: str) -> tuple[int, float, str]:
    """Layers in the order of their numbers: 2 before 10, decoder.2 before decoder.10."""
    digits = "".join(mark if mark.isdigit() else " " for mark in layer).split()
    return (0, float(digits[-1]), layer) if digits else (1, 0.0, layer)


def _comments(lines: Iterator[str]) -> dict[str, int]:
    pairs = (word.split("=", 1) for line in lines for word in line.split() if "=" in word)
    return {key: int(value) for key, value in pairs if value.isdigit()}


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _real(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TraceError(f"{value!r} is no {name}: it must be a number.") from error


def _number(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError) as error:
        raise TraceError(f"{value!r} is no position: it must be a whole number from 0.") from error
    if number < 0:
        raise TraceError(f"{value!r} is no position: it must be a whole number from 0.")
    return number
