"""Routed experts in the answers of serving engines, and in records that this project's page saved.

vLLM: base64 of a .npy array (tokens - 1, layers, k). SGLang: base64 of int32 numbers in that order, without a shape.
In both the last token written has no routing, since no pass ran after it.
Try it: traces_in(json.loads(Path("answer.json").read_text()), num_layers=48, top_k=8)
"""

import base64
import binascii
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from switch_model.routing import Routing
from switch_model.topk_routing import record_of_dict
from switch_model.traces.trace import MAX_ASSIGNMENTS, RoutingTrace, TraceError, one_text, refuse_unwritten

_NPY = b"\x93NUMPY"
# Where an answer has the ids of its tokens; an engine's text is not cut into tokens.
_PROMPT_IDS, _WRITTEN_IDS = ("prompt_token_ids", "input_ids"), ("token_ids", "output_ids")


def traces_in(answer: Any, num_layers: int | None = None, top_k: int | None = None) -> list[RoutingTrace]:
    """Every text of an answer (or of a list of answers) that has routed experts, or of a saved record.

    Args:
        answer: parsed JSON.
        num_layers, top_k: of the model, for arrays that come without a shape.

    Raises:
        TraceError: when there are none, or they can't be decoded.
    """
    found = list(_saved_records(answer)) or [
        _with_ids(_array(holder["routed_experts"], num_layers, top_k), _token_ids(holder, outer))
        for holder, outer in _holders(answer)
    ]
    if not found:
        raise TraceError(
            'There are no routed experts in this JSON: neither a key "routed_experts" (an answer of vLLM or SGLang, '
            'asked for with capturing on) nor a record that this page saved ("routing").'
        )
    return found


def array_of(data: bytes) -> np.ndarray:
    """A .npy file's array of whole numbers. Nothing in it can run. Raises TraceError."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except ValueError as error:
        raise TraceError("The array of routed experts is no valid .npy file.") from error
    # Checked before memory is taken for what the header claims.
    if dtype.kind not in "iu" or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise TraceError("The array of routed experts is cut off, or does not hold whole numbers.")
    file.seek(0)
    return _of_three(np.load(file, allow_pickle=False))


def _holders(value: Any, outer: dict[str, Any] | None = None) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each object with routed experts, and the one around it."""
    if isinstance(value, list):
        for one in value:
            yield from _holders(one, outer)
    elif isinstance(value, dict):
        if value.get("routed_experts") is not None:
            yield value, outer or {}
        for one in value.values():
            if isinstance(one, dict | list):
                yield from _holders(one, value)


def _array(value: Any, num_layers: int | None, top_k: int | None) -> np.ndarray:
    """(T, L, K) whole numbers."""
    if isinstance(value, list):
        try:
            return _of_three(np.array(value, dtype=np.int64))
        except (ValueError, TypeError, OverflowError) as error:
            raise TraceError('"routed_experts" must be a list [token][layer][choice] of whole numbers.') from error
    if not isinstance(value, str):
        raise TraceError('"routed_experts" is neither base64 text nor a list.')
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise TraceError('"routed_experts" is not valid base64: the answer was cut off or changed.') from error
    if data.startswith(_NPY):
        return array_of(data)
    if len(data) % 4 == 0:  # Said before the shape is asked for, which would not help.
        refuse_unwritten(np.frombuffer(data, dtype="<i4"))
    if not num_layers or not top_k:
        raise TraceError(
            "These routed experts are numbers without a shape (as SGLang sends them): give the model's number of "
            "layers and of experts per token (num_hidden_layers and num_experts_per_tok of its config.json)."
        )
    if not data or len(data) % (4 * num_layers * top_k):
        raise TraceError(
            f"{len(data)} bytes are no whole number of tokens with {num_layers} layers and {top_k} experts each: are "
            "these the model's?"
        )
    return _of_three(np.frombuffer(data, dtype="<i4").reshape(-1, num_layers, top_k))


def _of_three(array: np.ndarray) -> np.ndarray:
    if array.ndim != 3:
        raise TraceError(f"Routed experts must have three axes (token, layer, choice); these have {array.ndim}.")
    if array.size > MAX_ASSIGNMENTS:
        raise TraceError(f"{array.size:,} assignments are too many; at most {MAX_ASSIGNMENTS:,} are read.")
    return array


def _token_ids(holder: dict[str, Any], outer: dict[str, Any]) -> list[int] | None:
    def ids(names: tuple[str, ...]) -> list[int] | None:
        return next((one[name] for one in (holder, outer) for name in names if isinstance(one.get(name), list)), None)

    prompt, written = ids(_PROMPT_IDS), ids(_WRITTEN_IDS)
    return None if prompt is None or written is None else [*prompt, *written]


def _with_ids(experts: np.ndarray, ids: list[int] | None) -> RoutingTrace:
    # One id more than rows: the last token was written and never read.
    if ids is None or not len(experts) <= len(ids) <= len(experts) + 1:
        return one_text(experts)
    return one_text(experts, tokens=[f"#{token}" for token in ids[: len(experts)]])


def _saved_records(value: Any) -> Iterator[RoutingTrace]:
    """One trace for each stack of a saved record (ui/sharing) or of `/trace`: a dict with "tokens" and "routing"."""
    if isinstance(value, list):
        for one in value:
            yield from _saved_records(one)
    elif isinstance(value, dict):
        if isinstance(value.get("routing"), list) and isinstance(value.get("tokens"), list) and value["routing"]:
            yield _of_record(value)
        else:
            # What stood there before a change is another run of the same text.
            for key, one in value.items():
                if key not in ("before", "what_if", "matters"):
                    yield from _saved_records(one)


def _of_record(value: dict[str, Any]) -> RoutingTrace:
    try:
        records = [record_of_dict(one).example(0) for one in value["routing"]]
        experts = np.stack([record.experts[0].numpy() for record in records], axis=1)
        # A dropped token's gate is kept: its expert was chosen.
        gates = (record.gate.unsqueeze(-1) if isinstance(record, Routing) else record.weights for record in records)
        weights = np.stack([gate[0].numpy() for gate in gates], axis=1)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise TraceError("The record's routing is damaged.") from error
    tokens = [str(token) for token in value["tokens"]]
    names = [record.name for record in records]
    return one_text(experts, weights, names, tokens=tokens if len(tokens) == len(experts) else None)
