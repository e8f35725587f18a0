"""Every option of a model, declared once: its type, default, bounds, and what it means.

Validation, error messages, the docstring of SwitchConfig, the flags of `python -m train`, their help and the table of
parameters in How it works are all derived from here. Names follow transformers' SwitchTransformersConfig where it has
them.
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
    RouterKind,
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
        "For an output in another vocabulary than the input; with share_embeddings=False.",
        low=1,
        none="as vocab_size",
        largest=MAX_WIDTH,
    )
    d_model: int = option(
        128,
        "width of the residual stream",
        low=1,
        largest=MAX_WIDTH,
        effect="width of a hidden state: what the router sees, and what an expert takes in and gives back",
    )
    d_kv: int = option(32, "width of one attention head", low=1, largest=MAX_WIDTH)
    d_ff: int = option(
        512, "hidden width of one expert, and of a dense MLP", low=1, largest=MAX_WIDTH, effect="width inside an expert"
    )
    num_heads: int = option(4, "attention heads per block", low=1, largest=MAX_WIDTH)
    num_layers: int = option(4, "blocks", low=1, largest=MAX_LAYERS)
    num_experts: int = option(
        8,
        "experts per sparse layer",
        low=1,
        largest=MAX_EXPERTS,
        effect="how many small networks a layer has; a token uses one of them, so that more cost memory, not time",
    )
    router: RouterKind = option(
        "switch",
        "how tokens get their experts: one each (switch), top_k each (topk), top_k by sigmoid scores and a bias "
        "(sigmoid_bias), or each expert chooses its tokens (expert_choice, encoders only)",
        "switch_model/layers/routers/ has their papers.",
        effect="who chooses whom: a token one expert, or several, or an expert its tokens",
    )
    num_experts_per_tok: int = option(
        2,
        "experts of a token, with another router than switch; with expert_choice on average",
        "Not top_k: transformers would take that for a setting of `generate`.",
        low=1,
        largest=MAX_EXPERTS,
        effect="with another router than switch, how many experts compute a token",
    )
    norm_topk_prob: bool = option(
        True,
        "divide the weights of a token's experts by their sum, with router=topk and sigmoid_bias",
        "As Mixtral and DeepSeek-V3 do; OLMoE does not.",
    )
    routed_scaling_factor: float = option(
        1.0, "factor on these weights", "DeepSeek-V3 has 2.5, beside a shared expert.", above=0.0
    )
    num_shared_experts: int = option(
        0,
        "experts that every token goes through besides (router=topk and others, not switch)",
        "DeepSeekMoE (2401.06066), section 3.2.",
        low=0,
        largest=MAX_EXPERTS,
        effect="experts that every token goes through besides, so that the others need not learn the same",
    )
    d_expert: int | None = option(
        None,
        "hidden width of one expert, where it is not d_ff",
        "Fine-grained experts (DeepSeekMoE, section 3.1) are narrower than a dense MLP.",
        low=1,
        none="as d_ff",
        largest=MAX_WIDTH,
    )
    expert_groups: int = option(
        1,
        "groups of experts, of which a token chooses top_groups first; 1 = no groups",
        "With router=topk by each group's best expert (DeepSeek-V2, 2405.04434, section 2.1.2), with sigmoid_bias by "
        "the sum of its best two (DeepSeek-V3, 2412.19437).",
        low=1,
        largest=MAX_EXPERTS,
    )
    top_groups: int = option(1, "groups that a token's experts come from", low=1, largest=MAX_EXPERTS)
    bigram_buckets: int = option(
        0,
        "rows of a hashed table of word-pair embeddings; 0 = words only",
        "They are added to the tokens' own.",
        low=0,
        largest=MAX_WIDTH,
    )
    conv_width: Literal[0, 3, 5, 7, 9] = option(
        0, "kernel width, in tokens, of a convolution before the first block, 3 to 9; 0 = none; encoders only"
    )
    counted_rows: int = option(
        0,
        "rows of a hashed table of naive Bayes log-odds of words and word pairs, added to the logits; 0 = none",
        "Classifiers only: switch_model/layers/word_counts.py.",
        low=0,
        largest=MAX_WIDTH,
    )
    encoder_sparse_step: int = option(
        1,
        "every n-th MLP is sparse: 1 = all, 0 = none (a dense model)",
        "n makes blocks 1, 1+n, 1+2n … sparse, counted from 0, as in transformers.",
        low=0,
        effect="every n-th layer is sparse; the others have one dense MLP for all tokens",
    )
    num_decoder_layers: int | None = option(
        None, "blocks of a decoder", low=1, none="as many as num_layers", largest=MAX_LAYERS
    )
    decoder_sparse_step: int | None = option(
        None, "which MLPs of a decoder are sparse, as in encoder_sparse_step", low=0, none="as encoder_sparse_step"
    )
    is_decoder: bool = option(False, "decoder-only; set by the model class")
    block_size: int = option(
        256,
        "sequence length, in tokens, from which a causal stack computes its capacity",
        "Not the text's own length: then later tokens would decide whether an earlier one is dropped.",
        low=1,
    )
    position: Position = option(
        "relative",
        "how positions are encoded: a bias on attention scores, vectors added to the embeddings, or queries and keys "
        "turned by their position (rotary)",
        '"relative" = T5\'s bias on attention scores; "sinusoidal" (1706.03762, section 3.5) and "learned" = vectors '
        'added to the embeddings; "rotary" (2104.09864), as in Mixtral.',
    )
    rope_theta: float = option(10_000.0, "with position=rotary: base of the wavelengths", above=0.0)
    max_positions: int = option(512, "number of learned positions", low=1, largest=MAX_WIDTH)
    inputs_embeds_size: int | None = option(
        None,
        "width of `inputs_embeds`, which a linear layer projects to d_model",
        low=1,
        none="inputs_embeds have width d_model",
        largest=MAX_WIDTH,
    )
    attention_experts: AttentionExperts = option(
        "none",
        "experts in attention: for each token's query, key and value, or a whole attention per text",
        '"projections" = a token\'s query, key and value come from the expert it is routed to (Switch Transformers, '
        'appendix A); "module" = a whole self-attention per expert, chosen once per sequence, in encoders only: a '
        "causal stack must not read the whole sequence.",
    )
    attention_sparse_step: int = option(
        1, "every n-th block has attention_experts, counted as in encoder_sparse_step", low=0
    )
    expert_residual: float = option(
        1.0,
        "scale of the residual connection around a sparse layer's experts, 0 to 1; 0 = none, the experts' output alone",
        "1 = the usual residual connection.",
        low=0.0,
        high=1.0,
        effect="share of the residual around the experts: 1 = all of it, 0 = only the expert’s output goes on",
    )
    dense_act_fn: Activation = option("relu", "activation inside the MLPs", "In dense and in expert MLPs alike.")
    dropout_rate: float = option(
        0.1, "dropout on embeddings, attention and MLP outputs, and inside dense MLPs", **PROBABILITY
    )
    token_dropout: float = option(0.0, "share of tokens masked out in training", **PROBABILITY)
    token_dropout_from: int = option(0, "no token dropout in texts of fewer tokens", low=0)
    expert_dropout: float = option(
        0.1,
        "dropout inside the experts",
        "Between activation and `wo`; ST-MoE (2202.08906) uses a higher rate there than elsewhere.",
        **PROBABILITY,
        effect="hidden units of an expert that are silenced at random in training",
    )
    switch_dropout: float = option(
        0.0,
        "dropout on the router's input",
        "In training; the experts get the states without it.",
        **PROBABILITY,
        effect="parts of the router’s input that are silenced at random in training; the experts see them",
    )
    router_jitter_noise: float = option(
        0.0,
        "multiplicative noise on the router's input, U(1 - x, 1 + x)",
        "In training (Switch Transformers, 2101.03961).",
        **PROBABILITY,
        effect="in training, the router’s input times random numbers near 1, to try other experts too",
    )
    router_noise_eps: float = option(
        0.0,
        "standard deviation of Gaussian noise on the router's logits",
        "In training.",
        low=0.0,
        effect="for the same end, random numbers of this size added to the logits in training",
    )
    router_bias: bool = option(False, "a bias in the router")
    router_dtype: RouterDtype = option(
        "float32", "dtype in which the router's logits are computed", "Imported checkpoints may have another."
    )
    router_priority: Priority = option(
        "position",
        "which tokens get an expert's slots first",
        '"position" = first come, "probability" = highest gate first; a causal stack goes by position.',
        effect="who gets the slots: first come (position), or the surest tokens first (probability)",
    )
    capacity_factor: float | None = option(
        1.0,
        "slots per expert as a multiple of tokens / experts, in training",
        above=0.0,
        none="no token is dropped in training",
        effect="slots per expert in training over an even share: tight drops tokens, loose wastes room",
    )
    eval_capacity_factor: float | None = option(
        2.0,
        "slots per expert as a multiple of tokens / experts, in evaluation",
        above=0.0,
        none="no token is dropped in evaluation",
        effect="the same when the model is used",
    )
    expert_capacity: int | None = option(
        None,
        "slots per expert as an absolute number, instead of both factors",
        low=1,
        none="the factors decide",
        effect="an absolute number of slots instead of a factor",
    )
    min_expert_capacity: int = option(
        4,
        "minimum slots per expert, whatever the factors",
        "So that short texts do not lose most tokens.",
        low=0,
        effect="slots that an expert has at least, so that short texts are not starved",
    )
    capacity_group: CapacityGroup = option(
        "sequence",
        "whether slots are shared within a sequence or over the whole batch",
        "The paper uses the batch; a causal stack always uses the sequence.",
        effect="over what slots are counted: each text by itself, or the whole batch",
    )
    router_aux_loss_coef: float = option(
        1e-2,
        "weight of the balance loss",
        low=0.0,
        effect="weight of the balance loss: too little, one expert takes all; too much, routing is blind",
    )
    router_z_loss_coef: float = option(
        1e-3,
        "weight of the router's z-loss",
        low=0.0,
        effect="weight of the z-loss, which keeps logits small and training steady",
    )
    balance: Balance = option(
        "loss",
        "load balancing: the balance loss, a bias on the router's choice (loss-free), or none",
        "The bias is added to the logits for the choice alone, and is raised for underloaded experts (Loss-Free "
        "Balancing, 2408.15664). router=sigmoid_bias always has one, expert_choice needs nothing.",
        effect="how loads are kept even over a batch: by the balance loss, by a bias on the choice, or not at all",
    )
    balance_rate: float = option(
        1e-3,
        "with balance=bias and router=sigmoid_bias: update of the bias per step",
        low=0.0,
        effect="with balance = bias, how far a training step moves that bias",
    )
    sequence_balance_coef: float = option(
        0.0,
        "weight of a balance loss per sequence",
        "DeepSeek-V3's complementary loss (2412.19437).",
        low=0.0,
        effect="weight of a balance loss over each text by itself, so that one text uses many experts",
    )
    layer_loss_coef: float = option(
        0.0,
        "with readout=experts: weight of the loss on earlier layers' votes",
        "In training. With a small expert_residual, the last layer alone hardly trains the earlier ones at first.",
        low=0.0,
        effect="with readout = experts, weight of what the experts of earlier layers would vote in training",
    )
    relative_attention_num_buckets: int = option(
        32, "relative positions: number of distance buckets", "As in T5.", low=4, even=True
    )
    relative_attention_max_distance: int = option(
        128, "relative positions: all distances from here on share a bucket", "As in T5.", low=2
    )
    relative_attention_slope: float = option(
        0.0,
        "relative positions: initial slope of the bias with distance, in favour of near tokens; 0 = flat (T5)",
        "Of the first head; it decreases from head to head, as in ALiBi (2108.12409).",
        low=0.0,
    )
    layer_norm_epsilon: float = option(1e-6, "added to the mean square in every norm", "As in T5.", above=0.0)
    initializer_factor: float = option(
        1.0, "factor on the standard deviation of initial weights", "As in T5.", above=0.0
    )
    readout: Readout = option(
        "residual",
        "what the classifier reads: the last hidden states, or the last sparse layer's expert outputs alone (votes)",
        '"experts" = each token\'s expert output times its gate, and nothing else: every logit is a bias plus a sum of '
        'votes, one per token (linear head; pooling "mean" or "attention").',
        effect="what the classifier reads: the residual stream, or the last sparse layer’s experts alone (votes)",
    )
    pooling: Pooling = option(
        "mean",
        "how token states are pooled into one vector",
        'Over real tokens; "attention" = a mean weighted by a learned score of each token\'s last hidden state.',
    )
    cls_token: bool = option(False, "a learned token before the text, for pooling=first")
    classifier_head: Head = option(
        "linear", "layers from the pooled vector to classes", '"mlp" has one hidden layer of d_model.'
    )
    classifier_dropout: float = option(0.1, "dropout on the pooled vector", **PROBABILITY)
    label_smoothing: float = option(0.0, "label smoothing of the loss, in classification and generation", **PROBABILITY)
    problem_type: Problem | None = option(
        None,
        "one class per text, any number of classes, or a number",
        "As in transformers.",
        none="inferred from the labels",
    )
    embedding_norm: bool = option(
        False,
        "RMS-normalise the embeddings before the first block",
        "To RMS 1. T5 does not; with small initial weights it keeps the tokens of one text apart, where the context "
        "that attention adds to all of them would dominate.",
    )
    tie_word_embeddings: bool = option(
        True, "language models: the output layer shares the embedding table", "Masked language models too."
    )
    share_embeddings: bool = option(True, "encoder and decoder share one embedding table")
    scale_decoder_outputs: bool = option(
        False, "scale hidden states by d_model^-½ before a tied output layer", "As in T5."
    )
    restores_gaps: bool = option(
        False,
        "trained by span corruption: `___` in a text is read as a sentinel",
        "switch_model/inference/sentinels.py.",
    )
    pad_token_id: int = option(0, "padding token", "`attention_mask` alone decides what counts as padding.", low=0)
    bos_token_id: int | None = option(
        None,
        "beginning-of-sequence token",
        "With two vocabularies this, the next two and pad_token_id belong to the output's.",
        low=0,
        none="no such token",
    )
    eos_token_id: int | None = option(None, "end-of-sequence token", low=0, none="generation ends at max tokens alone")
    decoder_start_token_id: int | None = option(
        None, "first token of a decoder's input", low=0, none="the padding token, as in T5"
    )


# By name: the fields declared above, and the allowed values of each.
OPTIONS: dict[str, Field] = {own.name: own for own in fields(SwitchFields) if "help" in own.metadata}
RULES: dict[str, Rule] = {name: rule_of(own) for name, own in OPTIONS.items()}
