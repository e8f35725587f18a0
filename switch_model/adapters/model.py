"""A mixture-of-experts model of transformers with the interface of a Switch model: interventions in, records out.

Legend: B batch, T tokens, V tokens in the vocabulary, C classes.
Try it: adapted, tokenizer = load_adapted("a/mixtral"); adapted(ids, output_routing=True).routing
"""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from switch_model.adapters.config import AdaptedConfig
from switch_model.adapters.families import SUPPORTED, is_router, reason_against
from switch_model.adapters.hooks import Hooks, Router
from switch_model.interventions import AnyInterventions, Interventions, rows_of
from switch_model.models.pretrained import IGNORED_LABEL
from switch_model.storage.errors import CheckpointError
from switch_model.topk_routing import TopKRouting

# Of a text, where neither the tokenizer nor the model has a limit.
MAX_TOKENS = 200_000


@dataclass(frozen=True, eq=False)
class AdaptedOutput:
    """Logits (B, T, V), (B, T, C) or (B, C), and one record per sparse layer, None unless asked for."""

    logits: Tensor
    routing: tuple[TopKRouting, ...] | None = None
    votes: None = None


class AdaptedModel:
    """A model of transformers. What its head gives decides the subclass: `adapt` chooses it.

    Attributes:
        library: the model itself.
        config: what the package asks of a configuration.
    """

    library: Any
    # Whether it gives a text a class.
    classifies = False

    def __init__(self, library: Any, tokenizer: Any):
        self.library = library.eval()
        named, self.stacks = routers_and_stacks(library)
        if not named:
            why = reason_against(library.config.model_type)
            raise CheckpointError(why or f"The family {library.config.model_type} has no router to read. {SUPPORTED}")
        records = self._first_records(named)
        # Some models have layers for training alone, which no text goes through.
        self.routers = [router for router in named if router.name in records]
        if not self.routers:
            raise CheckpointError(f"No router of this {library.config.model_type} was called. {SUPPORTED}")
        choices = max(record.experts.shape[-1] for record in records.values())
        self.config = AdaptedConfig.of(library, tokenizer, self.routers, choices)
        # A tokenizer without a limit has one that is too large for its backend.
        tokenizer.model_max_length = min(tokenizer.model_max_length, self.config.max_positions or MAX_TOKENS)
        # Classifiers of the library find a row's last token by its padding token.
        self.lacks_padding = getattr(library.config.get_text_config(), "pad_token_id", None) is None

    @torch.inference_mode()
    def _first_records(self, named: Sequence[Router]) -> dict[str, TopKRouting]:
        """The records of two tokens, by layer: whether its routers return what they should."""
        ids = torch.ones(1, 2, dtype=torch.int64, device=self.library.device)
        inputs = {"decoder_input_ids": ids} if self.library.config.is_encoder_decoder else {}
        hooks = Hooks(named, self.stacks, [])
        try:
            with hooks.on():
                self.library(input_ids=ids, use_cache=False, **inputs)
            return {record.name: record for record in hooks.records()}
        except (ValueError, RuntimeError, TypeError, AttributeError, KeyError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            family = self.library.config.model_type
            raise CheckpointError(f"The family {family} can't be read: {why} {SUPPORTED}") from error

    @property
    def device(self) -> torch.device:
        return self.library.device

    def eval(self) -> "AdaptedModel":
        self.library.eval()
        return self

    def can_generate(self) -> bool:
        return False

    def parameter_counts(self) -> tuple[int, int]:
        """(all parameters, active parameters per token): of a layer's experts, those that a token goes through."""
        total = self.library.num_parameters()
        tables = [module for module in self.library.modules() if isinstance(module, nn.Embedding)]
        idle = sum((table.num_embeddings - 1) * table.embedding_dim for table in tables)
        share = 1 - self.config.num_choices / self.config.num_experts
        stacked = [module for name, module in self.library.named_modules() if re.search(r"(?<!shared)\.experts$", name)]
        experts = sum(weight.numel() for module in stacked for weight in module.parameters())
        return total, total - idle - round(share * experts)

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        interventions: AnyInterventions = None,
        output_routing: bool = False,
        use_cache: bool | None = None,
        **inputs: Any,
    ) -> AdaptedOutput:
        """One pass without a cache, whatever `use_cache`, which changes nothing here.

        Raises:
            ValueError: when interventions do not fit.
        """
        rows = self.check(interventions, len(input_ids))
        groups = _rows_of_one_k(rows)
        if len(groups) <= 1:
            return self._pass(input_ids, attention_mask, rows, output_routing, inputs)
        parts = []
        for chosen in groups:
            own = {name: value[chosen] if isinstance(value, Tensor) else value for name, value in inputs.items()}
            mask = None if attention_mask is None else attention_mask[chosen]
            parts.append(self._pass(input_ids[chosen], mask, [rows[index] for index in chosen], output_routing, own))
        order = torch.tensor([index for chosen in groups for index in chosen], device=input_ids.device).argsort()
        return _joined(parts, order)

    def _pass(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        rows: Sequence[Interventions],
        output_routing: bool,
        inputs: dict[str, Any],
    ) -> AdaptedOutput:
        hooks = Hooks(self.routers if output_routing or rows else (), self.stacks, rows)
        if attention_mask is not None:
            inputs = {"attention_mask": attention_mask.long(), **inputs}
        with hooks.on():
            logits = self.library(input_ids=input_ids, use_cache=False, **inputs).logits
        return AdaptedOutput(logits, hooks.records() if output_routing else None)

    def check(self, interventions: AnyInterventions, batch: int) -> list[Interventions]:
        """The rows of interventions; none for those that change nothing. Raises ValueError when they do not fit."""
        rows = rows_of(interventions, batch)
        for row in rows:
            row.check_layers(self.config.sparse_layers)
            for router in self.routers:
                of_layer = {expert for layer, expert in row.experts if layer == router.name}
                if of_layer and max(of_layer) >= router.num_experts:
                    raise ValueError(
                        f"{router.name} has no expert {max(of_layer)}: its experts are 0 to {router.num_experts - 1}."
                    )
            for layer, number in row.numbers.items():
                self._check_number(layer, number)
            if row.capacity_factor not in (None, float("inf")):
                raise ValueError(
                    f"capacity_factor={row.capacity_factor} changes nothing here: the experts of a "
                    f"{self.config.model_type} model have no capacity that could be set."
                )
        # A capacity is nothing to change here.
        rows = [replace(row, capacity_factor=None, capacity_group=None) for row in rows]
        return rows if any(row != Interventions() for row in rows) else []

    def _check_number(self, layer: str, number: int) -> None:
        meant = [router for router in self.routers if layer in ("", router.name)]
        most = min(router.num_experts for router in meant)
        if number > most:
            raise ValueError(f"top_k={number} is not allowed: {layer or 'a layer'} has {most} experts.")
        if not all(router.contract.any_k for router in meant):
            raise ValueError(
                f"top_k={number} is not allowed: the router of {self.config.model_type} always chooses "
                f"{self.config.num_choices}."
            )


class AdaptedClassifier(AdaptedModel):
    """A *ForSequenceClassification: logits (B, C)."""

    classifies = True

    def _pass(self, input_ids: Tensor, attention_mask: Tensor | None, rows: Any, output_routing: bool, inputs: Any):
        if not self.lacks_padding or len(input_ids) == 1:
            return super()._pass(input_ids, attention_mask, rows, output_routing, inputs)
        # Row by row: without a padding token the library can't tell where a padded row ends.
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        parts = []
        for index, mask_T in enumerate(mask_BT):
            tokens = int(mask_T.nonzero().max()) + 1
            own = [] if not rows else [rows[index if len(rows) > 1 else 0]]
            ids, mask = input_ids[index : index + 1, :tokens], mask_BT[index : index + 1, :tokens]
            parts.append(super()._pass(ids, mask, own, output_routing, inputs))
        return _joined(parts, torch.arange(len(parts), device=input_ids.device), input_ids.shape[1])


class AdaptedTokenClassifier(AdaptedModel):
    """A *ForTokenClassification: logits (B, T, C)."""


class AdaptedGenerator(AdaptedModel):
    """A model that writes text."""

    def can_generate(self) -> bool:
        return True

    @torch.inference_mode()
    def generate(self, input_ids: Tensor, interventions: AnyInterventions = None, **settings: Any) -> Tensor:
        """The library's `generate`, with interventions in every step: one for all texts, or one for each.

        Raises ValueError when interventions do not fit, or texts of one batch have different `top_k`.
        """
        rows = self.check(interventions, len(input_ids))
        if len(_rows_of_one_k(rows)) > 1:
            raise ValueError("Texts that are written together must have the same top_k.")
        if (given := settings.get("generation_config")) is not None and len(self.config.eos_token_ids) > 1:
            given.eos_token_id = list(self.config.eos_token_ids)
        hooks = Hooks(self.routers if rows else (), self.stacks, rows, growing=True)
        with hooks.on():
            return self.library.generate(input_ids, **_no_balance_loss(self.library), **settings)


class AdaptedCausalLM(AdaptedGenerator):
    """A *ForCausalLM: logits (B, T, V) of each next token."""


class AdaptedEncoderDecoder(AdaptedGenerator):
    """A *ForConditionalGeneration with an encoder and a decoder of text: logits (B, T, V) of each next token."""

    def shift_right(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's input for labels (B, T), and its mask: the start token, then each label but the last."""
        start = torch.full_like(labels[:, :1], self.config.decoder_start_token_id or 0)
        ids_BT = torch.cat([start, labels[:, :-1]], dim=1)
        mask_BT = ids_BT != IGNORED_LABEL
        return ids_BT.masked_fill(~mask_BT, self.config.pad_token_id), mask_BT


def adapt(library: Any, tokenizer: Any) -> AdaptedModel:
    """A model of transformers in the interface of this package. Raises CheckpointError when it can't be read."""
    name = type(library).__name__
    if name.endswith("ForSequenceClassification"):
        return AdaptedClassifier(library, tokenizer)
    if name.endswith("ForTokenClassification"):
        return AdaptedTokenClassifier(library, tokenizer)
    if not library.can_generate():
        raise CheckpointError(
            f"{name} has no head that this package can use: it opens models that write text, classify texts, or "
            "classify tokens."
        )
    return (AdaptedEncoderDecoder if library.config.is_encoder_decoder else AdaptedCausalLM)(library, tokenizer)


def routers_and_stacks(library: Any) -> tuple[list[Router], dict[str, nn.Module]]:
    """Every router of a model of transformers, and the modules that are called with a stack's tokens, by stack."""
    named = named_routers(library)
    if library.config.is_encoder_decoder:
        return named, {"encoder": library.get_encoder(), "decoder": library.get_decoder()}
    return named, {named[0].stack: library} if named else {}


def named_routers(library: Any) -> list[Router]:
    """Every router, named by its stack and block: "decoder.3"; a second one of a block by its module too."""
    found: dict[str, Router] = {}
    for path, module in library.named_modules():
        if not is_router(module) or re.search(r"(^|\.)(vision|visual|audio)\w*\.", path):
            continue
        block = re.search(r"\.(\d+)\.", f".{path}.")
        name = f"{_stack_of(library, path)}.{block[1] if block else 0}"
        if name in found:
            name = f"{name}.{path.rpartition('.')[2]}"
        found[name] = Router.of(name, module)
    return list(found.values())


def _stack_of(library: Any, path: str) -> str:
    if library.config.is_encoder_decoder:
        return "encoder" if re.search(r"(^|\.)encoder\.", path) else "decoder"
    # Attention that looks both ways makes an encoder.
    looks_ahead = [module.is_causal for module in library.modules() if hasattr(module, "is_causal")]
    return "encoder" if looks_ahead and not any(looks_ahead) else "decoder"


def _no_balance_loss(library: Any) -> dict[str, bool]:
    """Settings of `generate` that switch off the balance loss, which a model saved with it on computes in every step:
    with a cache it fails, since the mask covers past tokens and the router logits do not."""
    name = "output_router_logits"
    return {name: False} if name in inspect.signature(library.forward).parameters else {}


def _rows_of_one_k(rows: Sequence[Interventions]) -> list[list[int]]:
    """Indices of rows that have the same `top_k`."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(repr(sorted(row.numbers.items())), []).append(index)
    return list(groups.values())


def _joined(parts: Sequence[AdaptedOutput], order: Tensor, tokens: int = 0) -> AdaptedOutput:
    """The outputs of some rows each, in the `order` of all rows; records padded to `tokens`, and to the largest K."""
    logits = torch.cat([part.logits for part in parts])[order]
    if parts[0].routing is None:
        return AdaptedOutput(logits)
    layers = zip(*(part.routing for part in parts if part.routing), strict=True)
    return AdaptedOutput(logits, tuple(_joined_layer(records, order, tokens) for records in layers))


def _joined_layer(records: Sequence[TopKRouting], order: Tensor, tokens: int) -> TopKRouting:
    tokens = max(tokens, *(record.mask.shape[1] for record in records))
    choices = max(record.experts.shape[2] for record in records)

    def joined(name: str, width: int) -> Tensor:
        parts = []
        for record in records:
            tensor = getattr(record, name)
            missing = [0, width - tensor.shape[2]] if tensor.dim() == 3 else []
            parts.append(nn.functional.pad(tensor, [*missing, 0, tokens - tensor.shape[1]]))
        return torch.cat(parts)[order]

    return replace(
        records[0],
        experts=joined("experts", choices),
        weights=joined("weights", choices),
        mask=joined("mask", 0),
        logits=joined("logits", records[0].num_experts),
    )
