"""SwitchConfig: every option of a Switch Transformer, validated when it is made; config_fields.py declares them.

Names follow transformers' SwitchTransformersConfig where it has them. Try it:
python -c "from switch_model import SwitchConfig; print(SwitchConfig(num_layers=4))"
"""

import copy
import difflib
from collections.abc import Mapping
from dataclasses import fields
from textwrap import fill
from typing import Any

from switch_model.config_fields import OPTIONS, RULES, SwitchFields
from switch_model.config_rules import ADDING_POOLINGS, is_int

# Keys that transformers itself writes into, or passes to, any config.
_LIBRARY_KEYS = frozenset(
    [
        "num_labels",
        "name_or_path",
        "_name_or_path",
        "attn_implementation",
        "experts_implementation",
        "output_attentions",
        "torch_dtype",
        "model_type",
        "_commit_hash",
        "_attn_implementation_internal",
        "_experts_implementation_internal",
        "_from_auto",
        "auto_map",
        "use_cache",
    ]
)


def _check_names(id2label: Any, num_labels: int | None) -> None:
    """Raise ValueError unless id2label is None or maps 0, 1, … to names that differ."""
    if id2label is None:
        return
    numbered = isinstance(id2label, dict) and {str(key) for key in id2label} == {str(i) for i in range(len(id2label))}
    if not numbered or not id2label or not all(isinstance(name, str) for name in id2label.values()):
        raise ValueError(f"id2label={id2label!r} is not allowed: it must map 0, 1, … to at least one class name.")
    if len(set(id2label.values())) < len(id2label):
        raise ValueError(f"id2label={id2label!r} is not allowed: its class names must differ.")
    if num_labels not in (None, len(id2label)):
        raise ValueError(f"num_labels={num_labels} is not allowed: id2label names {len(id2label)} classes.")


def _every(step: int, layer: int) -> bool:
    """Whether `step` selects `layer`: none for 0, all for 1, else 1, 1 + step, 1 + 2 step …, as in transformers."""
    return step > 0 and (step == 1 or layer % step == 1)


class SwitchConfig(SwitchFields):
    """Shape and routing of one Switch Transformer: `help(SwitchConfig)` lists the fields.

    Also accepts id2label (dict), labels (list) or num_labels (int): the class names by index, or how many there are.

    Raises:
        ValueError: naming the field, the value and what is allowed.
    """

    model_type = "switch_encoder"
    attribute_map = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "sparse_step": "encoder_sparse_step",
    }
    # Trainer.evaluate gathers every output that is not named here, and a Routing is not a tensor.
    keys_to_ignore_at_inference = [
        "routing",
        "aux_loss",
        "z_loss",
        "auxiliary_loss",
        "votes",
        "cache",
        "past_key_values",
        "hidden_states",
        "attentions",
    ]

    def __post_init__(self, **kwargs):
        # PreTrainedConfig would silently keep an unknown key: a misspelt field must not train a different model.
        wanted = kwargs.get("num_labels")
        if wanted is not None and not (is_int(wanted) and wanted >= 1):
            raise ValueError(f"num_labels={wanted!r} is not allowed: it must be a whole number of at least 1.")
        if (labels := kwargs.pop("labels", None)) is not None:
            if not isinstance(labels, (list, tuple)):
                raise ValueError(f"labels={labels!r} is not allowed: it must be a list of class names.")
            self.id2label = dict(enumerate(labels))
        _check_names(self.id2label, wanted)
        known = [field.name for field in fields(self)] + list(self.attribute_map)
        for key in kwargs:
            if key not in _LIBRARY_KEYS and key not in self.attribute_map:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean {close[0]}?" if close else f" Fields: {', '.join(sorted(RULES))}."
                raise ValueError(f"SwitchConfig has no field {key}.{hint}")
        super().__post_init__(**kwargs)
        if self.id2label is not None:
            self.label2id = {name: int(index) for index, name in self.id2label.items()}
        self.validate()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; another num_labels makes a new head, without the names of the old classes."""
        wanted, names = kwargs.get("num_labels"), config_dict.get("id2label")
        if wanted is not None and names is not None and len(names) != wanted and "id2label" not in kwargs:
            config_dict = {key: value for key, value in config_dict.items() if key not in ("id2label", "label2id")}
        return super().from_dict(config_dict, **kwargs)

    def validate(self) -> None:
        """Check every field. Raises ValueError naming the field, the value and what is allowed."""
        for name, rule in RULES.items():
            value = getattr(self, name)
            if not rule.allows(value):
                raise ValueError(f"{name}={value!r} is not allowed: it must be {rule.words}.")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
            value = getattr(self, name)
            table = "vocab_size" if self.decoder_vocab_size is None else "decoder_vocab_size"
            if value is not None and value >= (rows := getattr(self, table)):
                raise ValueError(f"{name}={value} is not allowed: it must be below {table}={rows}.")
        if self.decoder_vocab_size is not None and self.share_embeddings:
            raise ValueError(
                f"decoder_vocab_size={self.decoder_vocab_size} is not allowed with share_embeddings=True: one table "
                "can't hold two vocabularies."
            )
        if self.attention_experts == "module" and self.stacks == ("decoder",):
            raise ValueError(
                'attention_experts="module" is not allowed in a decoder: its router reads the whole sequence.'
            )
        if self.conv_width and self.stacks == ("decoder",):
            raise ValueError(
                f"conv_width={self.conv_width} is not allowed in a decoder: a convolution reads later tokens too."
            )
        if self.position == "rotary" and (self.d_kv % 2 or self.attention_experts != "none"):
            why = f"with d_kv={self.d_kv}: it turns pairs of numbers" if self.d_kv % 2 else "with attention_experts"
            raise ValueError(f'position="rotary" is not allowed {why}.')
        self._check_readout()
        self._check_router()
        # A decoder attends to earlier tokens only, and uses all buckets for them.
        part, words = (2, "half") if "decoder" in self.stacks else (4, "a quarter")
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets // part:
            raise ValueError(
                f"relative_attention_max_distance={self.relative_attention_max_distance} is not allowed: it must be "
                f"above {words} of relative_attention_num_buckets={self.relative_attention_num_buckets}."
            )

    def _check_readout(self) -> None:
        if self.readout == "residual":
            if self.layer_loss_coef:
                raise ValueError(f'layer_loss_coef={self.layer_loss_coef} is not allowed without readout="experts".')
            return
        if self.counted_rows:
            raise ValueError(
                f'counted_rows={self.counted_rows} is not allowed with readout="experts": the experts alone make the '
                "prediction."
            )
        if self.classifier_head != "linear":
            raise ValueError(
                f'classifier_head={self.classifier_head!r} is not allowed with readout="experts": only through a '
                "linear head are logits a sum of votes."
            )
        if self.pooling not in ADDING_POOLINGS:
            raise ValueError(
                f'pooling={self.pooling!r} is not allowed with readout="experts": it must be one of '
                f"{', '.join(map(repr, ADDING_POOLINGS))}, which are sums over tokens."
            )
        if self.stacks != ("encoder",) or not any(map(self.is_sparse, range(self.num_layers))):
            raise ValueError(
                'readout="experts" is not allowed: there is no encoder with a sparse MLP to read from '
                "(num_experts=1 makes a dense one)."
            )

    def _check_router(self) -> None:
        """Raise ValueError for settings that the router can't have."""
        kind, experts = self.router, self.num_experts
        if kind == "switch":
            for name, plain in (("num_shared_experts", 0), ("expert_groups", 1), ("routed_scaling_factor", 1)):
                if getattr(self, name) != plain:
                    raise ValueError(
                        f'{name}={getattr(self, name)} is not allowed with router="switch", which sends each token to '
                        'one expert and no other: take router="topk" (with num_experts_per_tok=1, if one is meant).'
                    )
            return
        for name, own in (("readout", "residual"), ("attention_experts", "none")):
            if getattr(self, name) != own:
                raise ValueError(
                    f'router="{kind}" is not allowed with {name}="{getattr(self, name)}", which needs one expert for '
                    f'each token: take router="switch", or {name}="{own}".'
                )
        if self.num_experts_per_tok > experts:
            raise ValueError(
                f"num_experts_per_tok={self.num_experts_per_tok} is not allowed: a layer has num_experts={experts}."
            )
        if kind == "expert_choice":
            self._check_expert_choice()
        elif self.norm_topk_prob and self.num_experts_per_tok == 1:
            raise ValueError(
                "norm_topk_prob=True is not allowed with num_experts_per_tok=1: the one weight would always be 1, and "
                "the router would learn nothing."
            )
        self._check_groups()

    def _check_expert_choice(self) -> None:
        for layer in range(self.depth("decoder") if "decoder" in self.stacks else 0):
            if self.is_sparse(layer, "decoder"):
                raise ValueError(
                    'router="expert_choice" is not allowed in a decoder: an expert chooses among all tokens of a text, '
                    "later ones too, so that a token's output would tell what follows it (2202.09368, section 6). Take "
                    "it in an encoder, or decoder_sparse_step=0."
                )
        if self.balance == "bias":
            raise ValueError(
                'balance="bias" is not allowed with router="expert_choice": every expert takes equally many tokens.'
            )

    def _check_groups(self) -> None:
        groups, size = self.expert_groups, self.num_experts // self.expert_groups
        if groups == 1:
            return
        if self.router == "expert_choice":
            raise ValueError(f'expert_groups={groups} is not allowed with router="expert_choice".')
        least = 2 if self.router == "sigmoid_bias" else 1
        if self.num_experts % groups or size < least:
            raise ValueError(
                f"expert_groups={groups} is not allowed: num_experts={self.num_experts} must make equal groups of at "
                f"least {least}."
            )
        if not self.top_groups <= groups or self.num_experts_per_tok > self.top_groups * size:
            raise ValueError(
                f"top_groups={self.top_groups} is not allowed: it must be at most expert_groups={groups}, and hold "
                f"num_experts_per_tok={self.num_experts_per_tok} experts (a group has {size})."
            )

    @property
    def expert_width(self) -> int:
        """Hidden width of one expert."""
        return self.d_ff if self.d_expert is None else self.d_expert

    @property
    def num_choices(self) -> int:
        """K: experts of a token in the records. With expert choice any number may be used."""
        return {"switch": 1, "expert_choice": self.num_experts}.get(self.router, self.num_experts_per_tok)

    @property
    def any_choices(self) -> bool:
        """Whether another number of experts for each token can be asked for."""
        return self.router in ("topk", "sigmoid_bias")

    @property
    def active_experts(self) -> int:
        """Routed experts that compute a token, with expert choice on average."""
        return 1 if self.router == "switch" else self.num_experts_per_tok

    @property
    def shared_experts(self) -> tuple[str, ...]:
        """Modules of experts that every token goes through: "encoder.blocks.0.mlp.shared_experts"."""
        names = (name.replace(".", ".blocks.") for name in self.sparse_layers)
        return tuple(f"{name}.mlp.shared_experts" for name in names) if self.num_shared_experts else ()

    @property
    def balances_by_bias(self) -> bool:
        """Whether routers have a bias for the choice alone."""
        return self.balance == "bias" or self.router == "sigmoid_bias"

    @property
    def balances_by_loss(self) -> bool:
        """Whether the balance loss is part of the loss."""
        return self.balance == "loss" and self.router in ("switch", "topk")

    @property
    def stacks(self) -> tuple[str, ...]:
        """Which stacks a model of this config has: "encoder", "decoder" or both."""
        return ("encoder", "decoder") if self.is_encoder_decoder else ("decoder",) if self.is_decoder else ("encoder",)

    def depth(self, stack: str) -> int:
        """Number of blocks of a stack."""
        return self.num_layers if stack == "encoder" else self.num_decoder_layers or self.num_layers

    def is_sparse(self, layer: int, stack: str = "encoder") -> bool:
        """Whether the MLP of block `layer` (counted from 0) has experts. The one place where this is decided."""
        own = self.decoder_sparse_step if stack == "decoder" else None
        return _every(self.encoder_sparse_step if own is None else own, layer)

    def attention_is_sparse(self, layer: int, stack: str = "encoder") -> bool:
        """Whether the self-attention of block `layer` has experts."""
        if self.attention_experts == "none" or (self.attention_experts == "module" and stack == "decoder"):
            return False
        return _every(self.attention_sparse_step, layer)

    @property
    def sparse_layers(self) -> tuple[str, ...]:
        """Names of the sparse layers as in Routing.name, encoder first, in depth order."""
        names = []
        for stack in self.stacks:
            for layer in range(self.depth(stack)):
                names += [f"{stack}.{layer}.attention"] if self.attention_is_sparse(layer, stack) else []
                names += [f"{stack}.{layer}"] if self.is_sparse(layer, stack) else []
        return tuple(names)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> "SwitchConfig":
        """The config from which `generate` sizes its cache: the decoder may be deeper than the encoder."""
        if not decoder or self.depth("decoder") == self.num_layers:
            return self
        config = copy.copy(self)
        config.num_layers = self.depth("decoder")
        return config

    @property
    def labels(self) -> list[str]:
        """Class names by index."""
        return [name for _, name in sorted((int(index), name) for index, name in (self.id2label or {}).items())]


def check_untrusted(values: Mapping[str, Any]) -> None:
    """Raise ValueError for a size above the limits for untrusted files, before anything is built from it."""
    for name, own in OPTIONS.items():
        value, largest = values.get(name), own.metadata["largest"]
        if largest is not None and is_int(value) and value > largest:
            raise ValueError(f"{name}={value} is above the limit of {largest:,}.")


def _field_doc(name: str) -> str:
    """The docstring entry of a field: what it is, its default, and the allowed values."""
    own, rule = OPTIONS[name], RULES[name]
    allowed = "" if rule.kind is bool else f": {rule.words}"
    words = f"{name}: {own.metadata['help']}. Default {own.default!r}{allowed}. {own.metadata['note']}"
    return fill(words.strip(), 116, initial_indent=" " * 8, subsequent_indent=" " * 12, break_on_hyphens=False)


if SwitchConfig.__doc__:  # python -OO strips docstrings.
    entries = "\n".join(map(_field_doc, OPTIONS))
    SwitchConfig.__doc__ = SwitchConfig.__doc__.replace("    Raises:", f"    Args:\n{entries}\n\n    Raises:", 1)
