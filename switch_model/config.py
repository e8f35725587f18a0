"""SwitchConfig: every choice that shapes a Switch Transformer, checked when it is made.

Names follow transformers' SwitchTransformersConfig where it has them. Try it:
python -c "from switch_model import SwitchConfig; print(SwitchConfig(num_layers=4))"
"""

import copy
import difflib
from dataclasses import fields
from typing import Any

from transformers import PreTrainedConfig

from switch_model.config_rules import ADDING_POOLINGS, RULES, is_int

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
    """Which layers a step names: none for 0, all for 1, else 1, 1 + step, 1 + 2 step …, as in transformers."""
    return step > 0 and (step == 1 or layer % step == 1)


class SwitchConfig(PreTrainedConfig):
    """The shape and the routing of one Switch Transformer.

    Args:
        vocab_size: rows of the token embedding.
        decoder_vocab_size: rows of the decoder's own embedding and of the output, where what is written has another
            tokenizer than what is read (with share_embeddings=False); None = one vocabulary for both.
        d_model, d_kv, d_ff: widths of the residual stream, of one attention head, of one expert's hidden layer.
        num_heads, num_layers, num_experts: attention heads, blocks, experts per sparse layer.
        num_decoder_layers, decoder_sparse_step: blocks of a decoder, and which are sparse; None = as the encoder.
        is_decoder: a decoder alone, no encoder; set by the model class.
        block_size: tokens of a text that a causal stack counts its capacity from. Not the text's own length: then what
            follows would decide whether a token finds room.
        bigram_buckets: rows of a hashed table of word-pair embeddings, added to the tokens' own; 0 = none.
        conv_width: neighbouring tokens that a convolution joins before an encoder's first block; 0 = none.
        counted_rows: of a classifier, rows of a hashed table of counted words and word pairs that speak for classes
            beside the encoder (switch_model/layers/word_counts.py); 0 = none.
        encoder_sparse_step: 0 makes every MLP dense, 1 makes every MLP sparse, n makes blocks 1, 1+n, 1+2n … sparse
            (counted from 0), as in transformers.
        position: "relative" (T5's bias on attention scores), or "sinusoidal" (1706.03762, section 3.5) or "learned"
            vectors added to the embeddings.
        max_positions: tokens that have a learned position.
        inputs_embeds_size: width of the `inputs_embeds` that come in, brought to d_model by a linear layer.
        attention_experts: "none"; "projections" = a token's query, key and value come from the expert it is routed to
            (Switch Transformers, appendix A); "module" = a whole self-attention per expert, chosen once per sequence
            (in encoders; a decoder over one stays as it is: a causal stack must not know the whole sequence).
        attention_sparse_step: which blocks that holds for, counted like encoder_sparse_step.
        expert_residual: how much of a token passes by the experts of a sparse layer: 1 = all of it, as in every
            transformer; 0 = what comes out of the layer is what the token's expert made of it.
        dense_act_fn: "relu", "gelu" or "gated-gelu", in dense and in expert MLPs alike.
        dropout_rate: on embeddings, attention outputs, MLP outputs and inside dense MLPs.
        token_dropout: share of tokens hidden from the model during training, in texts of token_dropout_from tokens on.
        expert_dropout: inside an expert, between activation and `wo` (ST-MoE, 2202.08906, uses a higher rate there).
        switch_dropout: on the router's input, in training; the experts see the undropped states.
        router_jitter_noise: the router's input times U(1 − ε, 1 + ε) in training (Switch Transformers, 2101.03961).
        router_noise_eps: standard deviation of Gaussian noise added to the logits in training.
        router_dtype: what the logits are computed in. float32 but for imported checkpoints that say otherwise.
        router_priority: who gets the slots, "position" (first come) or "probability" (highest gate first); a causal
            stack goes by position.
        capacity_factor, eval_capacity_factor: slots per expert over an even share, in training and in evaluation;
            None = dropless.
        expert_capacity: an absolute number of slots, which overrides both factors.
        min_expert_capacity: lower bound of what the factors give, so that short texts are not starved.
        capacity_group: capacity counts tokens of one "sequence" or of the whole "batch" (as the paper does); a causal
            stack counts by sequence.
        router_aux_loss_coef, router_z_loss_coef: weights of balance loss and z-loss in the total loss.
        balance, balance_rate: how loads are kept even over a batch: by the balance "loss", or without it by a "bias"
            that is added to the logits for the choice alone and that training moves by this rate a step, up where an
            expert has too little (Loss-Free Balancing, 2408.15664).
        sequence_balance_coef: weight of a balance loss over each text by itself (DeepSeek-V3's complementary loss).
        layer_loss_coef: readout="experts" only: weight of the class loss of what the earlier sparse layers' experts
            would vote, in training: with a small expert_residual they learn nothing from the last layer alone at first.
        relative_attention_num_buckets, relative_attention_max_distance: T5's relative position bias.
        relative_attention_slope: how steeply that bias falls with distance before training, in the first head; each
            further one falls less, as in ALiBi (2108.12409). 0 = all distances begin alike (T5).
        layer_norm_epsilon, initializer_factor: as in T5.
        readout: what a classifier reads. "residual" = the last hidden states, as usual; "experts" = what the experts of
            the last sparse layer gave each token, times its gate, and nothing else: every logit is a bias and a sum of
            votes, one of each token (linear head; pooling "mean" or "attention").
        pooling: how hidden states become one vector: "mean", "first", "max" or "mean+max" over real tokens; "attention"
            = a mean that weighs each token by a learned score of its last hidden state.
        cls_token: a learned vector stands before the first token; "first" pools it.
        classifier_head: "linear", or "mlp" with one hidden layer of d_model.
        classifier_dropout: on that vector.
        label_smoothing: of the classification loss.
        problem_type: what a classifier learns, by transformers' names: "single_label_classification" (one class to a
            text), "multi_label_classification" (any number of them), "regression" (a number); None = what the labels
            say.
        embedding_norm: bring every token's embedding to RMS 1 before the first block. T5 does not; trained from small
            weights it keeps tokens of one text apart, where attention's common context would drown them.
        id2label / labels / num_labels: the class names by index, as a dict or a list, or just how many there are.
        tie_word_embeddings: a language model's output layer, masked ones' too, is its embedding table.
        share_embeddings: encoder and decoder read from one table; else the decoder has its own.
        scale_decoder_outputs: hidden states times d_model^-½ before a tied output layer, as T5 has it.
        restores_gaps: trained by span corruption: `___` in a text is read as a sentinel (inference/sentinels.py).
        pad_token_id: fills batches; what counts as padding is decided by `attention_mask` alone.
        bos_token_id, eos_token_id, decoder_start_token_id: what opens and ends a text, and starts a decoder. With two
            vocabularies these, and pad_token_id, are tokens of what is written.

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
    # Trainer.evaluate gathers every output that is not named here, and a Routing is no tensor.
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

    vocab_size: int = 16000
    decoder_vocab_size: int | None = None
    d_model: int = 128
    d_kv: int = 32
    d_ff: int = 512
    num_heads: int = 4
    num_layers: int = 4
    num_experts: int = 8
    bigram_buckets: int = 0
    conv_width: int = 0
    counted_rows: int = 0
    encoder_sparse_step: int = 1
    num_decoder_layers: int | None = None
    decoder_sparse_step: int | None = None
    is_decoder: bool = False
    block_size: int = 256
    position: str = "relative"
    max_positions: int = 512
    inputs_embeds_size: int | None = None
    attention_experts: str = "none"
    attention_sparse_step: int = 1
    expert_residual: float = 1.0
    dense_act_fn: str = "relu"
    dropout_rate: float = 0.1
    token_dropout: float = 0.0
    token_dropout_from: int = 0
    expert_dropout: float = 0.1
    switch_dropout: float = 0.0
    router_jitter_noise: float = 0.0
    router_noise_eps: float = 0.0
    router_bias: bool = False
    router_dtype: str = "float32"
    router_priority: str = "position"
    capacity_factor: float | None = 1.0
    eval_capacity_factor: float | None = 2.0
    expert_capacity: int | None = None
    min_expert_capacity: int = 4
    capacity_group: str = "sequence"
    router_aux_loss_coef: float = 1e-2
    router_z_loss_coef: float = 1e-3
    balance: str = "loss"
    balance_rate: float = 1e-3
    sequence_balance_coef: float = 0.0
    layer_loss_coef: float = 0.0
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    relative_attention_slope: float = 0.0
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    readout: str = "residual"
    pooling: str = "mean"
    cls_token: bool = False
    classifier_head: str = "linear"
    classifier_dropout: float = 0.1
    label_smoothing: float = 0.0
    embedding_norm: bool = False
    tie_word_embeddings: bool = True
    share_embeddings: bool = True
    scale_decoder_outputs: bool = False
    restores_gaps: bool = False
    pad_token_id: int = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    decoder_start_token_id: int | None = None

    def __post_init__(self, **kwargs):
        # PreTrainedConfig would keep any unknown key silently: a misspelt field must not train a different model.
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
            self.label2id = {name: index for index, name in self.id2label.items()}
        self.validate()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """transformers' own; num_labels given while loading gives a new head, without the names of the old classes."""
        wanted, names = kwargs.get("num_labels"), config_dict.get("id2label")
        if wanted is not None and names is not None and len(names) != wanted and "id2label" not in kwargs:
            config_dict = {key: value for key, value in config_dict.items() if key not in ("id2label", "label2id")}
        return super().from_dict(config_dict, **kwargs)

    def validate(self) -> None:
        """Check every field. Raises ValueError naming the field, the value and what is allowed."""
        for name, (allowed, words) in RULES.items():
            value = getattr(self, name)
            if not allowed(value):
                raise ValueError(f"{name}={value!r} is not allowed: it must be {words}.")
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
                'attention_experts="module" is not allowed in a decoder: it looks at the whole sequence at once.'
            )
        if self.conv_width and self.stacks == ("decoder",):
            raise ValueError(
                f"conv_width={self.conv_width} is not allowed in a decoder: a convolution looks at later tokens too."
            )
        self._check_readout()
        # A decoder looks one way only, and has all buckets for it.
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
                f"{', '.join(map(repr, ADDING_POOLINGS))}, which add up tokens."
            )
        if self.stacks != ("encoder",) or not any(map(self.is_sparse, range(self.num_layers))):
            raise ValueError(
                'readout="experts" is not allowed: there is no encoder with a sparse MLP to read from '
                "(num_experts=1 makes a dense one)."
            )

    @property
    def stacks(self) -> tuple[str, ...]:
        """Which stacks a model of this config has: "encoder", "decoder" or both."""
        return ("encoder", "decoder") if self.is_encoder_decoder else ("decoder",) if self.is_decoder else ("encoder",)

    def depth(self, stack: str) -> int:
        """How many blocks a stack has."""
        return self.num_layers if stack == "encoder" else self.num_decoder_layers or self.num_layers

    def is_sparse(self, layer: int, stack: str = "encoder") -> bool:
        """Whether the MLP of block `layer` (counted from 0) has experts. The one place where this is decided."""
        own = stack == "decoder" and self.decoder_sparse_step is not None
        return _every(self.decoder_sparse_step if own else self.encoder_sparse_step, layer)

    def attention_is_sparse(self, layer: int, stack: str = "encoder") -> bool:
        """Whether the self-attention of block `layer` has experts."""
        if self.attention_experts == "none" or (self.attention_experts == "module" and stack == "decoder"):
            return False
        return _every(self.attention_sparse_step, layer)

    @property
    def sparse_layers(self) -> tuple[str, ...]:
        """Names of the sparse layers, encoder first, in depth order, as they stand in Routing.name."""
        names = []
        for stack in self.stacks:
            for layer in range(self.depth(stack)):
                names += [f"{stack}.{layer}.attention"] if self.attention_is_sparse(layer, stack) else []
                names += [f"{stack}.{layer}"] if self.is_sparse(layer, stack) else []
        return tuple(names)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> "SwitchConfig":
        """What `generate` sizes its cache by: the decoder may have other layers than the encoder."""
        if not decoder or self.depth("decoder") == self.num_layers:
            return self
        config = copy.copy(self)
        config.num_layers = self.depth("decoder")
        return config

    @property
    def labels(self) -> list[str]:
        """Class names by index."""
        return [self.id2label[index] for index in range(self.num_labels)]
