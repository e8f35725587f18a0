"""AdaptedConfig: what the rest of the package asks of a model's configuration, for a mixture-of-experts model of
transformers.

Try it: AdaptedConfig.of(model, tokenizer, routers, num_choices=2)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from switch_model.adapters.families import FIXED_CHOICES
from switch_model.adapters.hooks import Router


@dataclass(frozen=True)
class AdaptedConfig:
    """Attributes have the names and meanings of `SwitchConfig`'s; beside them:

    Attributes:
        model_type: the family.
        num_choices: K, experts of each token.
        any_choices: whether another number of them can be asked for.
        shared_experts: modules of experts that every token goes through; they are in no record.
        eos_token_ids: all tokens that end a text; `eos_token_id` is the first.
    """

    model_type: str
    sparse_layers: tuple[str, ...]
    num_experts: int
    num_choices: int
    num_layers: int
    shared_experts: tuple[str, ...]
    labels: list[str]
    problem_type: str | None
    vocab_size: int
    max_positions: int | None
    pad_token_id: int
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    decoder_start_token_id: int | None
    is_encoder_decoder: bool
    cls_token: bool = False
    restores_gaps: bool = False
    attention_experts: str = "none"
    capacity_group: str = "sequence"
    expert_capacity: int | None = None
    capacity_factor: float | None = None
    eval_capacity_factor: float | None = None
    readout: str = "tokens"
    any_choices: bool = True
    expert_residual: float = 1.0

    @property
    def eos_token_id(self) -> int | None:
        return self.eos_token_ids[0] if self.eos_token_ids else None

    @property
    def position(self) -> str:
        """ "learned" where the number of positions is limited, as for learned ones."""
        return "relative" if self.max_positions is None else "learned"

    @property
    def block_size(self) -> int:
        """Tokens of a block of text in an evaluation."""
        return min(self.max_positions or BLOCK, BLOCK)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, routers: Sequence[Router], num_choices: int) -> "AdaptedConfig":
        """Of a model of transformers, its tokenizer, its routers, and K."""
        config = model.config.get_text_config()
        # Settings of a text model may be in the whole's configuration, or in what it generates by.
        generation = getattr(model, "generation_config", None)
        ends = _first("eos_token_id", generation, config, model.config, tokenizer)
        pad = _first("pad_token_id", config, model.config, tokenizer)
        labels = model.config.id2label or {}
        return cls(
            model_type=model.config.model_type,
            sparse_layers=tuple(router.name for router in routers),
            num_experts=max(router.num_experts for router in routers),
            num_choices=num_choices,
            num_layers=int(_first("num_hidden_layers", config) or 0),
            shared_experts=tuple(name for name, module in model.named_modules() if _is_shared(name, module)),
            labels=[str(labels[index]) for index in sorted(labels)],
            # One class alone is a number, for the library.
            problem_type=model.config.problem_type or ("regression" if len(labels) == 1 else None),
            vocab_size=config.vocab_size,
            max_positions=_first("max_position_embeddings", config),
            pad_token_id=0 if pad is None else pad,
            bos_token_id=_first("bos_token_id", config, tokenizer),
            eos_token_ids=tuple(ends) if isinstance(ends, list | tuple) else () if ends is None else (ends,),
            decoder_start_token_id=_first("decoder_start_token_id", generation, model.config),
            is_encoder_decoder=bool(model.config.is_encoder_decoder),
            any_choices=config.model_type not in FIXED_CHOICES and all(router.contract.any_k for router in routers),
        )


# Tokens of a block where positions have no limit, or a high one.
BLOCK = 512


def _first(name: str, *sources: Any) -> Any:
    """The first value that is not None."""
    return next((value for one in sources if (value := getattr(one, name, None)) is not None), None)


def _is_shared(name: str, module: nn.Module) -> bool:
    return name.rpartition(".")[2] in ("shared_expert", "shared_experts", "shared_mlp")
