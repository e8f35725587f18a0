"""What each expert writes: the direct contribution of every part of a model to the logits of one prediction.

Legend: P places that the head reads, K choices, V outputs (tokens of the vocabulary, or classes).
A residual stream is a sum: embedding, attention of each block, and each expert's output times its weight. Before the
final norm the sum is exact. The norm divides it by one number, which is held fixed as of the true pass, and the output
layer is linear: so the logits are a sum too ("direct logit attribution", the direct paths of 2211.00593). What a part
changes in later layers is not in it: ablation measures that.
Try it: direct_attribution(generator, generator("Once upon a time"), token=3).experts
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from switch_model.adapters.model import AdaptedModel
from switch_model.attribution.heads import Linearised, head_of
from switch_model.attribution.linear import NotSeparable, frozen_norm
from switch_model.attribution.residual import Added, Watched
from switch_model.inference.classifier import Prediction
from switch_model.inference.mask_filler import Filling
from switch_model.inference.pipeline import AnyModel, TextPipeline
from switch_model.inference.text_generator import Generation
from switch_model.inference.token_classifier import TokenPrediction
from switch_model.inference.traces import token_word
from switch_model.interventions import Interventions
from switch_model.storage.tokenizer_io import target_of
from switch_model.topk_routing import AnyRouting

# Outputs that are told for every part, and outputs that a part promotes or suppresses most.
MAX_OUTPUTS, MAX_MOVED = 6, 5
# Of what is left of the largest logit after all parts: more is an error of the method, less is rounding.
ROUNDING = {torch.float32: 0.005, torch.float16: 0.02, torch.bfloat16: 0.08}


@dataclass(frozen=True)
class Term:
    """One part of a sum of logits.

    Attributes:
        name: "expert", "shared experts", "attention", "embedding", "bias", …
        layer: "decoder.3"; None for parts outside of the blocks.
        expert: its number, of experts.
        weight: what the expert's output was multiplied by; None where it is one for each token of a text.
        values: its part of each output's logit.
        promoted, suppressed: the outputs of all that it adds most to and takes most from, with how much.
    """

    name: str
    layer: str | None
    expert: int | None
    weight: float | None
    values: list[float]
    promoted: list[tuple[str, float]]
    suppressed: list[tuple[str, float]]


@dataclass(frozen=True)
class DirectAttribution:
    """The logits of one prediction as a sum.

    Attributes:
        token: whose prediction it is, counted in the trace; None of a whole text.
        outputs: readable tokens or classes; of a text that was written, the token that follows comes first.
        ids: their numbers.
        logits: of the outputs, as the model gave them. They are the sums of the terms' values.
        terms: all parts; the last is "rounding", what is left of the logits.
    """

    token: int | None
    outputs: list[str]
    ids: list[int]
    logits: list[float]
    terms: list[Term]

    @property
    def experts(self) -> list[Term]:
        """Those of experts, the largest part of the first output's logit first."""
        return sorted((one for one in self.terms if one.expert is not None), key=lambda one: -abs(one.values[0]))

    @property
    def others(self) -> dict[str, list[float]]:
        """The sums of all other parts by name."""
        sums: dict[str, list[float]] = {}
        for term in self.terms:
            if term.expert is None:
                before = sums.get(term.name, [0.0] * len(term.values))
                sums[term.name] = [a + b for a, b in zip(before, term.values, strict=True)]
        return sums

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DirectAttribution":
        """The inverse of `to_dict`. Raises ValueError, KeyError or TypeError for anything else."""
        terms = [_term_of(one) for one in values["terms"]]
        found = cls(
            None if values["token"] is None else int(values["token"]),
            [str(one) for one in values["outputs"]],
            [int(one) for one in values["ids"]],
            [float(one) for one in values["logits"]],
            terms,
        )
        sizes = {len(found.outputs), len(found.ids), len(found.logits), *(len(term.values) for term in terms)}
        if len(sizes) > 1 or not found.outputs:
            raise ValueError("the parts of the logits do not fit together")
        for index, logit in enumerate(found.logits):
            if not abs(sum(term.values[index] for term in terms) - logit) < 1e-3 * max(1.0, abs(logit)):
                raise ValueError("the parts of the logits do not add up")
        return found


def _term_of(values: dict[str, Any]) -> Term:
    def moved(name: str) -> list[tuple[str, float]]:
        return [(str(output), float(value)) for output, value in values[name]]

    expert, weight, layer = values["expert"], values["weight"], values["layer"]
    return Term(
        str(values["name"]),
        None if layer is None else str(layer),
        None if expert is None else int(expert),
        None if weight is None else float(weight),
        [float(one) for one in values["values"]],
        moved("promoted"),
        moved("suppressed"),
    )


def direct_attribution(
    pipeline: TextPipeline,
    answer: Any,
    token: int | None = None,
    interventions: Interventions | None = None,
    outputs: Sequence[int] | None = None,
) -> DirectAttribution:
    """What each part of the model adds to the logits of one prediction.

    Args:
        pipeline: a Predictor, TextGenerator, MaskFiller or TokenClassifier.
        answer: what it gave for a text.
        token: index in the answer's last trace (of an encoder-decoder, the text that was written): the prediction made
            at this token, of a text that was written that of the next one. None = the last token that has a follower,
            or the first blank; a class of a whole text has no token.
        interventions: those that the answer was given with.
        outputs: numbers of tokens or classes; None = the token that follows and the most probable ones.

    Raises:
        ValueError: for a token that is not there, or a model whose logits can't be taken apart, with the reason.
    """
    if token is None and not isinstance(answer, Prediction):
        token = _first_asked(answer)
    return direct_attributions(pipeline, answer, [token], interventions, outputs)[0]


@torch.inference_mode()
def direct_attributions(
    pipeline: TextPipeline,
    answer: Any,
    tokens: Sequence[int | None],
    interventions: Interventions | None = None,
    outputs: Sequence[int] | None = None,
) -> list[DirectAttribution]:
    """`direct_attribution` of several tokens in one pass; [None] for the class of a whole text. Raises as it does."""
    model, trace, whole = pipeline.model, answer.traces[-1], isinstance(answer, Prediction)
    if model.config.readout == "experts":
        raise ValueError("This classifier reads its experts alone: its prediction's `votes` are the parts of a logit.")
    if not answer.routing:
        raise ValueError("This model has no sparse layer: no expert writes anything.")
    if not trace.ids:
        raise ValueError("This answer was saved without token ids. Ask the model again.")
    last = len(trace.tokens) - 1
    for token in tokens:
        if not whole and (token is None or not 0 <= token <= last):
            raise ValueError(f"There is no token {token}: the text has tokens 0 to {last}.")
    heads = [head_of(model, trace.ids, token or 0) for token in tokens]
    names = _names(pipeline, answer)
    try:
        places = [place for head in heads for place in head.places]
        added, normed, constant, output = _passed(model, answer, places, interventions)
        found: list[DirectAttribution] = []
        start = 0
        for head, token in zip(heads, tokens, strict=True):
            own = slice(start, start := start + len(head.places))
            linear = head.linearised(normed[own], output)
            wanted = outputs if outputs is not None else _outputs(linear.logits, trace.ids, token, answer)
            parts = [(part.at(own), states[own]) for part, states in added]
            terms = _terms(parts, constant, linear, wanted, names, _dtype(model))
            logits = linear.logits[list(wanted)].tolist()
            said = [names(index) for index in wanted]
            found.append(DirectAttribution(None if whole else token, said, list(wanted), logits, terms))
        return found
    except NotSeparable as error:
        raise ValueError(
            f"What each expert writes can't be told for this {_family(model)}, since {error}. What changes without an "
            "expert can: switch it off."
        ) from error


def _passed(
    model: AnyModel, answer: Any, places: Sequence[int], interventions: Interventions | None
) -> tuple[list[tuple[Added, Tensor]], Tensor, Tensor, Any]:
    """One pass: the parts after the final norm, (P, K, D) each; what it gave (P, D); its constant (D,); the output."""
    trace = answer.traces[-1]
    stack, tokens = trace.stack if len(answer.traces) > 1 else next(iter(model.stacks)), len(trace.tokens)
    ids = torch.tensor([trace.ids], device=model.device)
    given: dict[str, Any] = {"interventions": interventions, "output_routing": True}
    if model.can_generate():
        given["use_cache"] = True  # As during generation, a decoder drops nothing.
    if len(answer.traces) > 1:
        ids, given["decoder_input_ids"] = torch.tensor([answer.traces[0].ids], device=model.device), ids
    watched = Watched(*_blocks(model, stack), places, tokens)
    with watched.on():
        output = model(ids, **given)
    added, last = watched.added()
    _check_choices(added, places, output.routing)
    norm = frozen_norm(last.module, last.entered, last.left)
    return [(part, norm(part.states)) for part in added], last.left, norm.constant, output


def _blocks(model: AnyModel, stack: str) -> tuple[Any, list[Any], str, list[Any]]:
    """(what holds them and the final norm, the blocks, the stack's name, routers) of a stack."""
    if not isinstance(model, AdaptedModel):
        owner = getattr(model, stack)
        routers = [block.mlp.router for block in owner.blocks if hasattr(block.mlp, "router")]
        return owner, list(owner.blocks), stack, routers
    routers = [router for router in model.routers if router.stack == stack]
    if not routers:
        raise NotSeparable(f"its {stack} has no experts")
    paths = {module: path for path, module in model.library.named_modules()}
    steps = paths[routers[0].module].split(".")
    first = next((index for index, step in enumerate(steps) if step.isdigit()), None)
    if first is None:
        raise NotSeparable("its blocks are no list")
    owner = model.library.get_submodule(".".join(steps[: first - 1]))
    blocks = list(model.library.get_submodule(".".join(steps[:first])))
    return owner, blocks, stack, [router.module for router in routers]


def _check_choices(parts: Sequence[Added], places: Sequence[int], records: Sequence[AnyRouting]) -> None:
    """Raises NotSeparable where the experts that wrote are not those that the router chose."""
    written = {part.layer for part in parts if part.experts is not None}
    # The records of another stack have other places.
    chosen = {record.name: record.experts[0, places] for record in records if record.name in written}
    for part in parts:
        if part.experts is not None and part.layer in chosen:
            known_PKK = part.experts.unsqueeze(-1) == chosen[part.layer].unsqueeze(1)
            if not bool((known_PKK.any(-1) | (part.experts < 0)).all()):
                raise NotSeparable("its experts are computed for other tokens than its router chose them for")


def _first_asked(answer: Any) -> int:
    """The last token that has a follower, the first blank, or the last token."""
    if isinstance(answer, Filling):
        return answer.blanks[0].token
    return max(len(answer.traces[-1].tokens) - 1 - isinstance(answer, Generation), 0)


def _outputs(logits: Tensor, ids: Sequence[int], token: int | None, answer: Any) -> list[int]:
    best = logits.topk(min(MAX_OUTPUTS, len(logits))).indices.tolist()
    if token is None or not isinstance(answer, Generation) or token + 1 >= len(ids):
        return best
    follower = ids[token + 1]
    return [follower, *(one for one in best if one != follower)][:MAX_OUTPUTS]


def _names(pipeline: TextPipeline, answer: Any) -> Callable[[int], str]:
    """The readable name of an output by its number."""
    if isinstance(answer, Prediction):
        return list(answer.scores).__getitem__
    if isinstance(answer, TokenPrediction):
        return answer.classes.__getitem__
    return lambda index: token_word(target_of(pipeline.tokenizer), index)


def _dtype(model: AnyModel) -> torch.dtype:
    library: Any = getattr(model, "library", model)
    return next(library.parameters()).dtype


def _terms(
    added: Sequence[tuple[Added, Tensor]],
    constant_D: Tensor,
    linear: Linearised,
    wanted: Sequence[int],
    names: Callable[[int], str],
    dtype: torch.dtype,
) -> list[Term]:
    places, total = len(added[0][1]), torch.zeros_like(linear.logits)
    terms: list[Term] = []

    def term(
        name: str, layer: str | None, values: Tensor, expert: int | None = None, weight: float | None = None
    ) -> None:
        nonlocal total
        total = total + values
        moved: list[list[tuple[str, float]]] = [[], []]
        if expert is not None and len(values) > len(wanted):
            for index, sign in enumerate((1, -1)):
                best = (sign * values).topk(MAX_MOVED)
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                moved[index] = [(names(one), sign * value) for one, value in pairs]
        terms.append(Term(name, layer, expert, weight, values[list(wanted)].tolist(), *moved))

    for part, states in added:
        values_PKV = linear.then(states)
        if part.experts is None or part.weights is None:
            term(part.name, part.layer, values_PKV.sum((0, 1)))
            continue
        for expert in sorted(set(part.experts.flatten().tolist()) - {-1}):
            own_PK = part.experts == expert
            weight = None if places > 1 else float(part.weights[own_PK].sum())
            term("expert", part.layer, (values_PKV * own_PK.unsqueeze(-1)).sum((0, 1)), expert, weight)
    if bool(constant_D.any()):
        term("final norm's bias", None, linear.then(constant_D.expand(places, 1, -1)).sum((0, 1)))
    for name, values in linear.constants.items():
        term(name, None, values)
    rest = linear.logits - total
    if rest.abs().max() > ROUNDING.get(dtype, 0.08) * linear.logits.abs().max().clamp(min=1.0):
        raise NotSeparable("the parts do not add up to its logits")
    term("rounding", None, rest)
    return terms


def _family(model: AnyModel) -> str:
    return f"{model.config.model_type} model" if isinstance(model, AdaptedModel) else type(model).__name__
