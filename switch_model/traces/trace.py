"""A routing trace: which experts each token went to in each layer, without the model that chose them.

Legend: L layers, T tokens of all texts, K experts per token, E experts of a layer.
Try it: open_trace("answer.json", num_layers=48, top_k=8).experts.shape
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from switch_model.topk_routing import TopKRouting


class TraceError(ValueError):
    """A file that is not a routing trace, or a broken one: what is wrong, and what to do."""


# What serving engines fill a buffer with before anything is captured.
FILL_VALUES = (-1, 255, 65_535)
# Most assignments of a trace: 200 MB of memory.
MAX_ASSIGNMENTS = 50_000_000
MAX_EXPERTS = 4096


@dataclass(frozen=True, eq=False)
class RoutingTrace:
    """Experts of every token, first choice first.

    Attributes:
        layers: names of the L layers, such as "layer 3".
        experts: (L, T, K) int32.
        weights: (L, T, K) float32, what each expert's output was multiplied by; None = not recorded.
        num_experts: E; the highest index + 1 where nothing says it.
        text, position: (T,) index of each token's text, and its position there, from 0.
        tokens: T readable tokens; None = not recorded.
        notes: what a reader should know: what was left out, and why.
    """

    layers: tuple[str, ...]
    experts: np.ndarray
    weights: np.ndarray | None
    num_experts: int
    text: np.ndarray
    position: np.ndarray
    tokens: list[str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def top_k(self) -> int:
        """K."""
        return self.experts.shape[-1]

    def texts(self) -> Iterator[tuple[TopKRouting, ...]]:
        """The records of each text, one for each layer, as a model that is at hand would give them. Weights that were
        not recorded are taken to be even."""
        for text in np.unique(self.text):
            own = self.text == text
            mask = torch.ones(1, int(own.sum()), dtype=torch.bool)
            for_layer = []
            for index, layer in enumerate(self.layers):
                experts = torch.from_numpy(self.experts[index, own].astype(np.int64)).unsqueeze(0)
                if self.weights is None:
                    weights = torch.full(experts.shape, 1 / self.top_k)
                else:
                    weights = torch.from_numpy(self.weights[index, own]).unsqueeze(0)
                for_layer.append(TopKRouting(layer, experts, weights, mask, self.num_experts))
            yield tuple(for_layer)


def checked(trace: RoutingTrace, known_experts: int | None = None) -> RoutingTrace:
    """The trace without what was never captured.

    Layers of zeros alone (dense layers, in engines that keep a row for every layer) and places in the top k that hold a
    fill value alone (shared experts fused with the routed ones) are left out, and said in `notes`.

    Raises:
        TraceError: for a capture of zeros or of a fill value alone, and for indices that no router returns.
    """
    experts = trace.experts
    if known_experts is not None and not 0 < known_experts <= MAX_EXPERTS:
        raise TraceError(f"{known_experts} experts of a layer are no number of experts: it must be 1 to {MAX_EXPERTS}.")
    if not experts.size:
        raise TraceError("The trace has no token: nothing was captured. Is capturing switched on in the server?")
    refuse_unwritten(experts)
    trace = _without_dense_layers(_without_unfilled_places(trace, known_experts))
    _refuse_wrong_indices(trace, known_experts)
    return replace(trace, num_experts=known_experts or int(trace.experts.max()) + 1)


def refuse_unwritten(experts: np.ndarray) -> None:
    """Raises TraceError for a capture of zeros or of a fill value alone, whatever its shape."""
    distinct = np.unique(experts)
    if len(distinct) == 1 and (distinct[0] in FILL_VALUES or (distinct[0] == 0 and experts.size > 1)):
        raise TraceError(
            f"The capture is broken: every expert index is {distinct[0]}, the value that its buffer was filled with. "
            "Check that the server was started with capturing on, and that the request asked for it."
        )


def _without_unfilled_places(trace: RoutingTrace, known_experts: int | None) -> RoutingTrace:
    fill = [value for value in FILL_VALUES if known_experts is None or value >= known_experts or value < 0]
    unfilled = [k for k in range(trace.top_k) if (trace.experts[..., k] == trace.experts[0, 0, k]).all()]
    unfilled = [k for k in unfilled if trace.experts[0, 0, k] in fill]
    if not unfilled:
        return trace
    kept = [k for k in range(trace.top_k) if k not in unfilled]
    note = f"{len(unfilled)} of {trace.top_k} places of the top k hold the fill value alone and are left out."
    weights = None if trace.weights is None else trace.weights[..., kept]
    return replace(trace, experts=trace.experts[..., kept], weights=weights, notes=(*trace.notes, note))


def _without_dense_layers(trace: RoutingTrace) -> RoutingTrace:
    # A router of k > 1 never returns one expert twice, so that zeros alone were never written.
    dense = (trace.experts == 0).all(axis=(1, 2)) & (trace.top_k > 1)
    if not dense.any():
        return trace
    names = [name for name, left_out in zip(trace.layers, dense, strict=True) if left_out]
    kept = tuple(name for name, left_out in zip(trace.layers, dense, strict=True) if not left_out)
    weights = None if trace.weights is None else trace.weights[~dense]
    note = f"Without experts, and left out: {', '.join(names)}."
    return replace(trace, layers=kept, experts=trace.experts[~dense], weights=weights, notes=(*trace.notes, note))


def _refuse_wrong_indices(trace: RoutingTrace, known_experts: int | None) -> None:
    experts, most = trace.experts, known_experts or MAX_EXPERTS
    for wrong, said in (
        (experts < 0, "a negative expert, which stands for what was not captured: capture this text again"),
        (
            experts >= most,
            f"an expert beyond {most - 1}"
            + ("" if known_experts else ", which no model has")
            + ": give the model's own number of experts, or capture it again",
        ),
    ):
        if wrong.any():
            raise TraceError(f"{_where(trace, wrong)} has {said}.")
    if trace.weights is not None and not np.isfinite(trace.weights).all():
        where = _where(trace, ~np.isfinite(trace.weights))
        raise TraceError(
            f"{where} has a weight that is no finite number (NaN or infinite): the model or the capture is broken. "
            "Leave the weights out, and the rest is read."
        )
    if trace.top_k > 1:
        ordered = np.sort(experts, axis=-1)
        twice = (ordered[..., 1:] == ordered[..., :-1]).any(-1, keepdims=True)
        if twice.any():
            raise TraceError(
                f"{_where(trace, twice)} has one expert twice, which no router returns: the capture is incomplete, or "
                "the numbers of layers and of experts per token are not those of the model."
            )


def _where(trace: RoutingTrace, wrong: np.ndarray) -> str:
    layer, token, _ = (int(axis[0]) for axis in np.nonzero(wrong))
    return f"Token {trace.position[token]} of text {trace.text[token]} in {trace.layers[layer]}"


def layer_names(count: int) -> tuple[str, ...]:
    """Names for layers that a file only counts."""
    return tuple(f"layer {index}" for index in range(count))


def joined(traces: Sequence[RoutingTrace]) -> RoutingTrace:
    """Several texts as one trace. Raises TraceError where layers or experts per token differ."""
    first = traces[0]
    for other in traces:
        if other.layers != first.layers or other.top_k != first.top_k:
            raise TraceError(
                f"The file holds routing of {len(first.layers)} layers with {first.top_k} experts per token, and of "
                f"{len(other.layers)} layers with {other.top_k}: open those of one model at a time."
            )
    weights = [trace.weights for trace in traces if trace.weights is not None]
    tokens = [trace.tokens for trace in traces if trace.tokens is not None]
    return replace(
        first,
        experts=np.concatenate([trace.experts for trace in traces], axis=1),
        weights=np.concatenate(weights, axis=1) if len(weights) == len(traces) else None,
        text=np.concatenate([np.full(len(trace.text), index) for index, trace in enumerate(traces)]),
        position=np.concatenate([trace.position for trace in traces]),
        tokens=[token for one in tokens for token in one] if len(tokens) == len(traces) else None,
        num_experts=max(trace.num_experts for trace in traces),
        notes=tuple(dict.fromkeys(note for trace in traces for note in trace.notes)),
    )


def one_text(
    experts: np.ndarray, weights: np.ndarray | None = None, layers: Sequence[str] | None = None, **others
) -> RoutingTrace:
    """A trace of one text from (T, L, K) arrays, as engines return them."""
    tokens = experts.shape[0]
    return RoutingTrace(
        layers=tuple(layers or layer_names(experts.shape[1])),
        experts=np.ascontiguousarray(experts.swapaxes(0, 1), dtype=np.int32),
        weights=None if weights is None else np.ascontiguousarray(weights.swapaxes(0, 1), dtype=np.float32),
        num_experts=int(experts.max(initial=0)) + 1,
        text=np.zeros(tokens, dtype=np.int64),
        position=np.arange(tokens),
        **others,
    )
