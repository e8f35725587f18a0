"""Every training argument, declared once: flags, help, form and arguments.json are derived from these dataclasses."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from switch_model.config_fields import OPTIONS, RULES
from switch_model.config_rules import (
    Activation,
    AttentionExperts,
    Balance,
    CapacityGroup,
    Head,
    Pooling,
    Position,
    Priority,
    Readout,
    RouterKind,
)
from train.data.source import DataSource
from train.names import split_names

DEFAULT_TASK = "classification"


# Arguments of one task only: with any other task they must keep their defaults.
ONLY_FOR = {
    "target_tokenizer": "translation",
    "metrics": "translation",
    "features_column": "classification",
    "rare_token_dropout": "classification",
    "word_counts": "classification",
}


# What the page's form knows of an argument beyond its help: its name in words, whether it is always in view.
FOR_THE_FORM = ("label", "basic")


def _argument(default: Any, label: str, help: str, alias: str | None = None, basic: bool = False) -> Any:
    metadata = {"help": help, "label": label, "basic": basic} | ({"aliases": [alias]} if alias else {})
    return field(default=default, metadata=metadata)


# Fields of SwitchConfig whose flag has another name.
FLAGS = {
    "dropout_rate": "dropout",
    "classifier_dropout": "dropout",
    "eval_capacity_factor": "capacity_factor_eval",
    "router_aux_loss_coef": "aux_loss_coef",
    "router_z_loss_coef": "z_loss_coef",
    "encoder_sparse_step": "sparse_step",
    "num_experts_per_tok": "top_k",
}


def _of_config(name: str, label: str, default: Any, basic: bool = False) -> Any:
    """The flag of a field of SwitchConfig, with its help and what None means (inf, for a number)."""
    none, help = RULES[name].none, OPTIONS[name].metadata["help"]
    if none:
        help += f"; {'inf' if isinstance(default, float) else 'none'} = {none}"
    for field_name, flag in FLAGS.items():
        help = help.replace(field_name, flag)
    return _argument(default, label, help, basic=basic)


@dataclass
class DataArguments:
    """Data and tokenizer."""

    dataset: str = _argument(
        "toy",
        "Data set",
        "toy, mini_news, mini_reviews, ag_news, sst2, imdb, cola, mrpc, qqp, mnli, qnli, rte, en_hi, samanantar, "
        "tiny_stories, a folder of --data_dir, a hub id, or a CSV, TSV, JSONL or parquet file or a folder of some",
    )
    data_dir: str | None = _argument(
        None,
        "Folder of data sets",
        "folder with <dataset>/{train,validation,test}.parquet; none = SWITCH_DATA_DIR, then the hub",
    )
    text_column: str | None = _argument(
        None, "Column of texts", "column of texts, or two columns for pairs, comma-separated; none = found by name"
    )
    label_column: str | None = _argument(None, "Column of classes", "column of classes in a file; none = found by name")
    target_column: str | None = _argument(
        None, "Column of target texts", "column of target texts, for translation; none = found by name"
    )
    features_column: str | None = _argument(
        None,
        "Column of vectors",
        "classification: column of a parquet file with vectors instead of texts, a list of lists of numbers (T, width) "
        "in each row; none = texts",
    )
    language: str | None = _argument(
        None, "Language", "subset of a data set on the hub, such as samanantar's hi, ta or bn"
    )
    validation_size: float = _argument(
        0.05,
        "Validation share",
        "share of the training rows held out for validation, if the data set has no validation split",
    )
    num_samples: int | None = _argument(
        None, "Training rows", "number of training rows; none = all (toy: 1000); if not given, the preset decides"
    )
    streaming: bool = _argument(
        False,
        "Read as it comes",
        "classification, mlm, span_corruption: read the rows as they come, again in every pass, instead of keeping "
        "them on disk; needs --max_steps or --total_iters",
    )
    shuffle_buffer: int = _argument(
        10_000, "Shuffle buffer", "with --streaming: rows in memory among which the next one is drawn"
    )
    num_classes: int = _argument(3, "Classes of the toy", "classes of the toy data set")
    vocab_size: int | None = _argument(None, "Vocabulary size", "tokens in the vocabulary; none = 16000 (toy: 500)")
    tokenizer: str | None = _argument(
        None,
        "Tokenizer",
        "hub id, id@revision or folder of a tokenizer, such as ai4bharat/IndicBARTSS; none = train one",
    )
    target_tokenizer: str | None = _argument(
        None,
        "Tokenizer of target texts",
        "translation: tokenizer of target texts: own = train one on them, or a hub id or folder; none = one for both",
    )
    seq_len: int = _argument(16, "Tokens per text", "tokens per text; longer texts are cut")

    @property
    def source(self) -> DataSource:
        return DataSource.of(self)


@dataclass
class ModelArguments:
    """The shape and the routing of the model."""

    d_model: int = _of_config("d_model", "Model width", 128)
    d_kv: int | None = _argument(
        None, "Attention head width", "width of one attention head; none = d_model / num_heads"
    )
    d_ff: int | None = _argument(
        None, "MLP width", "hidden width of a dense MLP and, without d_expert, of one expert; none = 4 d_model"
    )
    num_layers: int = _of_config("num_layers", "Layers", 2)
    num_heads: int = _of_config("num_heads", "Attention heads", 4)
    num_experts: int = _of_config("num_experts", "Experts", 2, basic=True)
    router: RouterKind = _of_config("router", "Router", "switch")
    top_k: int = _of_config("num_experts_per_tok", "Experts per token", 2)
    norm_topk_prob: bool = _of_config("norm_topk_prob", "Normalised weights", True)
    routed_scaling_factor: float = _of_config("routed_scaling_factor", "Scale of weights", 1.0)
    num_shared_experts: int = _of_config("num_shared_experts", "Shared experts", 0)
    expert_granularity: int = _argument(
        1,
        "Expert granularity",
        "fine-grained experts (DeepSeekMoE): n times as many of 1/n the width; n times the top_k is the same work",
    )
    d_expert: int | None = _of_config("d_expert", "Width of one expert", None)
    expert_groups: int = _of_config("expert_groups", "Groups of experts", 1)
    top_groups: int = _of_config("top_groups", "Groups per token", 1)
    bigram_buckets: int = _of_config("bigram_buckets", "Word-pair embeddings", 0)
    conv_width: int = _of_config("conv_width", "Convolution width", 0)
    expert_residual: float | None = _argument(
        None,
        "Residual around experts",
        "scale of the residual connection around a sparse layer's experts, 0 to 1; none = 1, or as in --init_from",
    )
    sparse_step: int = _of_config("encoder_sparse_step", "Sparse step", 1)
    num_decoder_layers: int | None = _of_config("num_decoder_layers", "Decoder layers", None)
    decoder_sparse_step: int | None = _of_config("decoder_sparse_step", "Sparse step of the decoder", None)
    attention_experts: AttentionExperts = _of_config("attention_experts", "Experts in attention", "none")
    attention_sparse_step: int = _of_config("attention_sparse_step", "Sparse step of attention", 1)
    position: Position = _of_config("position", "Position encoding", "relative")
    rope_theta: float = _of_config("rope_theta", "Base of rotary positions", 10_000.0)
    relative_attention_slope: float = _of_config("relative_attention_slope", "Slope of relative positions", 0.0)
    cls_token: bool = _of_config("cls_token", "CLS token", False)
    classifier_head: Head = _of_config("classifier_head", "Classifier head", "linear")
    tie_word_embeddings: bool = _of_config("tie_word_embeddings", "Tied embeddings", True)
    dense_act_fn: Activation = _of_config("dense_act_fn", "Activation", "relu")
    readout: Readout = _of_config("readout", "Readout", "residual")
    pooling: Pooling = _of_config("pooling", "Pooling", "mean")
    embedding_norm: bool = _of_config("embedding_norm", "Normalised embeddings", True)
    dropout: float = _argument(
        0.1, "Dropout", "dropout on embeddings, attention and MLP outputs, and before the classifier"
    )
    token_dropout: float = _of_config("token_dropout", "Token dropout", 0.0)
    token_dropout_from: int = _of_config("token_dropout_from", "Token dropout from", 0)
    expert_dropout: float = _of_config("expert_dropout", "Expert dropout", 0.1)
    switch_dropout: float = _of_config("switch_dropout", "Router dropout", 0.1)
    router_jitter_noise: float = _of_config("router_jitter_noise", "Router jitter", 0.0)
    router_noise_eps: float = _of_config("router_noise_eps", "Router noise", 1e-2)
    router_bias: bool = _of_config("router_bias", "Router bias", False)
    router_priority: Priority = _of_config("router_priority", "Slot priority", "position")
    capacity_factor: float = _of_config("capacity_factor", "Capacity factor in training", 1.0)
    capacity_factor_eval: float = _of_config("eval_capacity_factor", "Capacity factor in evaluation", 2.0)
    expert_capacity: int | None = _of_config("expert_capacity", "Expert capacity", None)
    min_expert_capacity: int = _of_config("min_expert_capacity", "Minimum expert capacity", 4)
    capacity_group: CapacityGroup = _of_config("capacity_group", "Capacity group", "sequence")
    aux_loss_coef: float = _of_config("router_aux_loss_coef", "Balance loss weight", 1e-2)
    z_loss_coef: float = _of_config("router_z_loss_coef", "Z-loss weight", 1e-3)
    balance: Balance = _of_config("balance", "Load balancing", "loss")
    balance_rate: float = _of_config("balance_rate", "Balancing rate", 1e-3)
    sequence_balance_coef: float = _of_config("sequence_balance_coef", "Balance loss per sequence", 0.0)
    layer_loss_coef: float = _of_config("layer_loss_coef", "Loss on earlier layers", 0.0)
    label_smoothing: float = _of_config("label_smoothing", "Label smoothing", 0.1)

    @property
    def is_dense(self) -> bool:
        """Whether no MLP has several experts."""
        return self.sparse_step == 0 or self.num_experts == 1

    @property
    def drops_in_training(self) -> bool:
        """Whether an expert can be full while the model is trained."""
        factor = self.capacity_factor
        return self.expert_capacity is not None or (factor is not None and math.isfinite(factor))


@dataclass
class TrainArguments:
    """How the model is trained."""

    task: Literal["classification", "mlm", "span_corruption", "translation", "clm"] = _argument(
        DEFAULT_TASK,
        "Task",
        "classification; mlm: masked LM; span_corruption: T5's pretraining; translation; clm: causal LM (defaults: "
        "en_hi and samanantar translation, tiny_stories clm)",
    )
    init_from: str | None = _argument(
        None,
        "Initial checkpoint",
        "start from the weights, tokenizer and shape of this checkpoint (folder, run, zip, hub id or id@revision)",
    )
    upcycle: int = _argument(
        0,
        "Upcycle to experts",
        "with --init_from a dense model: each of its MLPs becomes the first weights of this many experts; 0 = off",
    )
    train_only: Literal["all", "router", "experts", "hot_experts"] = _argument(
        "all",
        "Trained weights",
        "which weights are trained: all, the routers, the experts, or with --init_from the experts that the data use "
        "most; new weights, such as a head, always",
    )
    hot_share: float = _argument(
        0.5,
        "Share of hot experts",
        "with --train_only hot_experts: in each layer the fewest experts that take this share of the tokens",
    )
    freeze_router: bool = _argument(False, "Frozen routers", "leave the routers' weights as they are")
    lora_rank: int = _argument(
        0,
        "LoRA rank",
        "with --init_from: train adapters of this rank beside frozen weights, and a classifier's head (LoRA, needs "
        "peft); 0 = off",
    )
    lora_alpha: float | None = _argument(
        None, "LoRA alpha", "with --lora_rank: adapters count alpha / rank times; none = 2 rank"
    )
    lora_on: Literal["both", "attention", "experts"] = _argument(
        "both", "LoRA on", "with --lora_rank: which weights get adapters"
    )
    metrics: Literal["none", "rouge"] = _argument(
        "none", "More metrics", "translation: further metrics of the generated texts; rouge: ROUGE-1, -2 and -L"
    )
    mlm_probability: float = _argument(0.15, "Masked share", "masked LM and span corruption: share of masked tokens")
    teachers: str | None = _argument(
        None,
        "Teachers",
        "knowledge distillation from these checkpoints with the same classes or vocabulary, comma-separated; their "
        "probabilities are averaged",
    )
    teacher_coef: float = _argument(1.0, "Distillation weight", "weight of the distillation loss with --teachers")
    residual_decay: float = _argument(
        0.0,
        "Residual decay",
        "steps over which the residual around the experts decreases from 1 to --expert_residual; below 1 = share of "
        "all steps",
    )
    rare_token_dropout: float = _argument(
        0.0,
        "Rare token dropout",
        "classification: in training, a token that occurs n times becomes the unknown token with probability "
        "x / (x + n)",
    )
    word_counts: bool = _argument(
        False,
        "Word counts",
        "classification: after training, add naive Bayes log-odds of words and word pairs to the logits",
    )
    preset: Literal["none", "tiny", "small", "base"] | None = _argument(
        None,
        "Size",
        "sizes and settings by name; all other arguments override it; default: small, for mini_news and mini_reviews "
        "tiny, for the toy none",
    )
    epochs: float = _argument(3.0, "Epochs", "passes over the training rows", basic=True)
    max_steps: int | None = _argument(None, "Maximum steps", "maximum number of steps, if the epochs would take more")
    min_steps: int = _argument(0, "Minimum steps", "minimum number of steps, if the epochs would take fewer")
    total_iters: int | None = _argument(None, "Exact steps", "exact number of steps, whatever the epochs")
    max_minutes: float | None = _argument(None, "Time limit", "time limit of training, in minutes")
    batch_size: int = _argument(32, "Batch size", "texts per batch")
    gradient_accumulation_steps: int = _argument(1, "Gradient accumulation", "batches per optimizer step")
    total_batch_size: int | None = _argument(
        None, "Tokens per step", "tokens per optimizer step, reached approximately by gradient accumulation"
    )
    optimizer: Literal["adafactor", "adamw"] = _argument(
        "adafactor", "Optimizer", "how weights are updated; adafactor takes less memory"
    )
    lr: float | None = _argument(
        None,
        "Learning rate",
        "size of the optimizer's steps; none = Adafactor with relative steps (adamw: 1e-3)",
        basic=True,
    )
    lr_schedule: Literal["constant", "linear", "cosine"] = _argument(
        "linear", "Learning rate schedule", "decay of the learning rate"
    )
    warmup: float = _argument(0.05, "Warm-up", "steps of linear warm-up; below 1 = share of all steps")
    weight_decay: float = _argument(
        0.0, "Weight decay", "pulls all weights a little towards zero at every step; 0 = off"
    )
    grad_clip: float = _argument(1.0, "Gradient clipping", "maximum gradient norm; 0 = no clipping")
    adafactor_clip_threshold: float = _argument(1.0, "Adafactor clipping", "Adafactor's clipping threshold for updates")
    ema_decay: float = _argument(
        0.0,
        "Weight averaging",
        "evaluate and keep an exponential moving average of the weights with this decay per step; 0 = no average",
    )
    precision: Literal["float32", "bfloat16", "float16"] = _argument(
        "float32", "Precision", "autocast dtype of matrix products; the router stays in float32"
    )
    compile: bool | None = _argument(None, "Compile", "compile the model; none = on CUDA only")
    liger: bool = _argument(
        False, "Fused loss", "causal and encoder-decoder models on CUDA: Liger's fused loss, without storing logits"
    )
    expert_parallel: int = _argument(
        1,
        "Processes with experts",
        "with torchrun: the experts of each layer are spread over this many processes; 1 = each has all of them",
    )
    fsdp: bool = _argument(
        False,
        "Divided weights",
        "with torchrun: weights, gradients and optimizer state are divided among the processes (FSDP2)",
    )
    device: str | None = _argument(None, "Device", "where to train: cpu or cuda; none = cuda where there is one")
    seed: int = _argument(0, "Seed", "seed of weights, data order and noise")
    output_dir: str | None = _argument(
        None, "Name of the run", "folder of the run; none = runs/<dataset>-<date>-<time>"
    )
    logging_steps: int | None = _argument(
        None,
        "Steps between log lines",
        "steps between log lines of training metrics; none = at least 50 lines per run, at most 50 steps between",
    )
    eval_steps: int | None = _argument(
        None,
        "Steps between evaluations",
        "steps between evaluations, each with a checkpoint; none = every epoch",
        "--eval_check",
    )
    eval_iters: int | None = _argument(
        None, "Validation batches", "number of validation batches per evaluation; none = all"
    )
    save_total_limit: int | None = _argument(
        2,
        "Checkpoints kept",
        "number of checkpoints to keep, with optimizer state; none = all, for the drift view in Compare",
    )
    probe: str | None = _argument(None, "Probe text", "probe text: its routing is recorded at every evaluation")
    report_to: str = _argument(
        "none", "Trackers", "where metrics go, too: none, tensorboard, wandb, or both, comma-separated"
    )
    run_name: str | None = _argument(
        None, "Name in trackers", "name of the run in TensorBoard and W&B; none = its folder's"
    )
    wandb_project: str = _argument("switch-transformers", "W&B project", "project on Weights & Biases")
    wandb_entity: str | None = _argument(None, "W&B user or team", "user or team on Weights & Biases; none = your own")

    @property
    def divides(self) -> bool:
        """Whether the model's weights are divided among processes."""
        return self.fsdp or self.expert_parallel > 1

    @property
    def reporters(self) -> list[str]:
        """The distinct names in `report_to`."""
        return [name for name in dict.fromkeys(split_names(self.report_to)) if name != "none"]


GROUPS = (DataArguments, ModelArguments, TrainArguments)
