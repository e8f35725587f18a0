"""Every choice that shapes a model, declared once: its type, default, bounds, and what it is.

From here follow the check of a configuration, the words of its errors, the docstring of SwitchConfig, the flags of
`python -m train` and their help. Names follow transformers' SwitchTransformersConfig where it has them.
Try it: python -c "from switch_model.config_fields import RULES; print(RULES['conv_width'].words)"
"""

from dataclasses import Field, fields
from typing import Literal

from transformers import PreTrainedConfig

from switch_model.config_rules import (
    MAX_EXPERTS,
    MAX_LAYERS,
    MAX_WIDTH,
    PROBABILITY,
    Activation,
    AttentionExperts,
    Balance,
    CapacityGroup,
    Head,
    Pooling,
    Position,
    Priority,
    Problem,
    Readout,
    RouterDtype,
    Rule,
    option,
    rule_of,
)


class SwitchFields(PreTrainedConfig):
    """The fields of SwitchConfig."""

    vocab_size: int = option(16000, "rows of the token embedding", low=1, largest=MAX_WIDTH)
    decoder_vocab_size: int | None = option(
        None,
        "rows of the decoder's own embedding and of the output layer",
        "For what is written with another tokenizer than what is read; with share_embeddings=False.",
        low=1,
        none="as vocab_size",
        largest=MAX_WIDTH,
    )
    d_model: int = option(128, "width of the residual stream", low=1, largest=MAX_WIDTH)
    d_kv: int = option(32, "width of one attention head", low=1, largest=MAX_WIDTH)
    d_ff: int = option(512, "hidden width of one expert, and of a dense MLP", low=1, largest=MAX_WIDTH)
    num_heads: int = option(4, "attention heads", low=1, largest=MAX_WIDTH)
    num_layers: int = option(4, "blocks", low=1, largest=MAX_LAYERS)
    num_experts: int = option(8, "experts per sparse layer", low=1, largest=MAX_EXPERTS)
    bigram_buckets: int = option(
        0,
        "rows of a hashed table of word-pair embeddings; 0 = words only",
        "They are added to the tokens' own.",
        low=0,
        largest=MAX_WIDTH,
    )
    conv_width: Literal[0, 3, 5, 7, 9] = option(
        0, "neighbouring tokens that a convolution joins before the first block, 3 to 9; 0 = none; encoders only"
    )
    counted_rows: int = option(
        0,
        "rows of a hashed table of counted words and word pairs that speak for classes beside the encoder; 0 = none",
        "Of a classifier: switch_model/layers/word_counts.py.",
        low=0,
        largest=MAX_WIDTH,
    )
    encoder_sparse_step: int = option(
        1,
        "1 = every MLP is sparse, n = every n-th, 0 = none (a dense model)",
        "n makes blocks 1, 1+n, 1+2n … sparse, counted from 0, as in transformers.",
        low=0,
    )
    num_decoder_layers: int | None = option(
        None, "blocks of a decoder", low=1, none="as many as num_layers", largest=MAX_LAYERS
    )
    decoder_sparse_step: int | None = option(
        None, "which MLPs of a decoder are sparse, as in encoder_sparse_step", low=0, none="as encoder_sparse_step"
    )
    is_decoder: bool = option(False, "a decoder alone, without an encoder; set by the model class")
    block_size: int = option(
        256,
        "tokens of a text that a causal stack counts its capacity from",
        "Not the text's own length: then later tokens would decide whether an earlier one has room.",
        low=1,
    )
    position: Position = option(
        "relative",
        "how tokens know where they stand",
        '"relative" = T5\'s bias on attention scores; "sinusoidal" (1706.03762, section 3.5) and "learned" = vectors '
        "added to the embeddings.",
    )
    max_positions: int = option(512, "tokens that have a learned position", low=1, largest=MAX_WIDTH)
    inputs_embeds_size: int | None = option(
        None,
        "width of the `inputs_embeds` that come in, which a linear layer brings to d_model",
        low=1,
        none="embeddings come in at d_model",
        largest=MAX_WIDTH,
    )
    attention_experts: AttentionExperts = option(
        "none",
        "experts in attention: for each token's query, key and value, or a whole attention per text",
        '"projections" = a token\'s query, key and value come from the expert it is routed to (Switch Transformers, '
        'appendix A); "module" = a whole self-attention per expert, chosen once per sequence, in encoders only: a '
        "causal stack must not know the whole sequence.",
    )
    attention_sparse_step: int = option(
        1, "which blocks attention_experts holds for, counted as in encoder_sparse_step", low=0
    )
    expert_residual: float = option(
        1.0,
        "how much of a token passes by a sparse layer's experts, 0 to 1; 0 = it is what its expert made of it",
        "1 = all of it, as in every transformer.",
        low=0.0,
        high=1.0,
    )
    dense_act_fn: Activation = option("relu", "activation inside the MLPs", "In dense and in expert MLPs alike.")
    dropout_rate: float = option(
        0.1, "dropout on embeddings, attention and MLP outputs, and inside dense MLPs", **PROBABILITY
    )
    token_dropout: float = option(0.0, "share of tokens hidden from the model in training", **PROBABILITY)
    token_dropout_from: int = option(0, "hide none in texts of fewer tokens", low=0)
    expert_dropout: float = option(
        0.1,
        "dropout inside the experts",
        "Between activation and `wo`; ST-MoE (2202.08906) uses a higher rate there than elsewhere.",
        **PROBABILITY,
    )
    switch_dropout: float = option(
        0.0, "dropout on the router's input", "In training; the experts see the undropped states.", **PROBABILITY
    )
    router_jitter_noise: float = option(
        0.0,
        "multiplicative noise on the router's input, U(1 - x, 1 + x)",
        "In training (Switch Transformers, 2101.03961).",
        **PROBABILITY,
    )
    router_noise_eps: float = option(
        0.0, "standard deviation of Gaussian noise on the router's logits", "In training.", low=0.0
    )
    router_bias: bool = option(False, "a bias in the router")
    router_dtype: RouterDtype = option(
        "float32", "what the logits are computed in", "Imported checkpoints may say another than float32."
    )
    router_priority: Priority = option(
        "position",
        "who gets an expert's slots first",
        '"position" = first come, "probability" = highest gate first; a causal stack goes by position.',
    )
    capacity_factor: float | None = option(
        1.0, "slots per expert over an even share, in training", above=0.0, none="no token is dropped in training"
    )
    eval_capacity_factor: float | None = option(
        2.0, "slots per expert over an even share, in evaluation", above=0.0, none="no token is dropped in evaluation"
    )
    expert_capacity: int | None = option(
        None, "an absolute number of slots, instead of both factors", low=1, none="capacity follows the factors"
    )
    min_expert_capacity: int = option(
        4, "fewest slots that the factors may give", "So that short texts are not starved.", low=0
    )
    capacity_group: CapacityGroup = option(
        "sequence",
        "what capacity counts over",
        'One "sequence" or the whole "batch", as the paper does; a causal stack counts by sequence.',
    )
    router_aux_loss_coef: float = option(1e-2, "weight of the balance loss", low=0.0)
    router_z_loss_coef: float = option(1e-3, "weight of the router's z-loss", low=0.0)
    balance: Balance = option(
        "loss",
        "how loads are kept even: by the balance loss, or by a bias on the choice that training moves instead",
        "The bias is added to the logits for the choice alone, and rises where an expert has too little (Loss-Free "
        "Balancing, 2408.15664).",
    )
    balance_rate: float = option(1e-3, "with balance=bias: how far that bias moves a step", low=0.0)
    sequence_balance_coef: float = option(
        0.0, "weight of a balance loss over each text by itself", "DeepSeek-V3's complementary loss.", low=0.0
    )
    layer_loss_coef: float = option(
        0.0,
        "with readout=experts: weight of the loss of earlier layers' votes",
        "In training. With a small expert_residual they learn nothing from the last layer alone at first.",
        low=0.0,
    )
    relative_attention_num_buckets: int = option(
        32, "relative positions: buckets of distances", "As in T5.", low=4, even=True
    )
    relative_attention_max_distance: int = option(
        128, "relative positions: from this distance on all share a bucket", "As in T5.", low=2
    )
    relative_attention_slope: float = option(
        0.0,
        "relative positions: how much nearer tokens are preferred before training; 0 = not at all (T5)",
        "How steeply the bias falls with distance in the first head; each further one falls less, as in ALiBi "
        "(2108.12409).",
        low=0.0,
    )
    layer_norm_epsilon: float = option(1e-6, "added to the mean square in every norm", "As in T5.", above=0.0)
    initializer_factor: float = option(1.0, "factor on every weight's size at the start", "As in T5.", above=0.0)
    readout: Readout = option(
        "residual",
        "what the classifier reads: the last states, or the last sparse layer's experts alone (votes)",
        '"experts" = what those gave each token, times its gate, and nothing else: every logit is a bias and a sum of '
        'votes, one of each token (linear head; pooling "mean" or "attention").',
    )
    pooling: Pooling = option(
        "mean",
        "how token states become one vector",
        'Over real tokens; "attention" = a mean that weighs each token by a learned score of its last hidden state.',
    )
    cls_token: bool = option(False, "a learned token before the text, which pooling=first reads")
    classifier_head: Head = option(
        "linear", "what turns the pooled vector into classes", '"mlp" has one hidden layer of d_model.'
    )
    classifier_dropout: float = option(0.1, "dropout on the pooled vector", **PROBABILITY)
    label_smoothing: float = option(0.0, "label smoothing of the loss, in classification and in writing", **PROBABILITY)
    problem_type: Problem | None = option(
        None,
        "what a classifier learns: one class to a text, any number of them, or a number",
        "By transformers' names.",
        none="what the labels say",
    )
    embedding_norm: bool = option(
        False,
        "bring every token's embedding to one size before the first block",
        "To RMS 1. T5 does not; trained from small weights it keeps tokens of one text apart, where attention's common "
        "context would drown them.",
    )
    tie_word_embeddings: bool = option(
        True, "a model of tokens: its output layer is its embedding table", "A masked language model's too."
    )
    share_embeddings: bool = option(True, "encoder and decoder read from one table; else the decoder has its own")
    scale_decoder_outputs: bool = option(
        False, "hidden states times d_model^-½ before a tied output layer", "As T5 has it."
    )
    restores_gaps: bool = option(
        False,
        "trained by span corruption: `___` in a text is read as a sentinel",
        "switch_model/inference/sentinels.py.",
    )
    pad_token_id: int = option(
        0, "fills batches", "What counts as padding is decided by `attention_mask` alone.", low=0
    )
    bos_token_id: int | None = option(
        None,
        "opens a text",
        "With two vocabularies this, the next two and pad_token_id are tokens of what is written.",
        low=0,
        none="no token opens a text",
    )
    eos_token_id: int | None = option(None, "ends a text", low=0, none="generation ends at its length alone")
    decoder_start_token_id: int | None = option(
        None, "starts a decoder", low=0, none="the padding token starts a decoder, as in T5"
    )


# By name: the fields that are declared here, and what each may be.
OPTIONS: dict[str, Field] = {own.name: own for own in fields(SwitchFields) if "help" in own.metadata}
RULES: dict[str, Rule] = {name: rule_of(own) for name, own in OPTIONS.items()}
