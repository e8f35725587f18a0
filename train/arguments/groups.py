"""Every training argument, declared once: flags, help, form and arguments.json are derived from these dataclasses."""

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
)
from train.data.source import DataSource
from train.names import split_names

DEFAULT_TASK = "classification"


# Arguments of one task only: with any other task they must keep their defaults.
ONLY_FOR = {
    "target_tokenizer": "translation",
    "teachers": "classification",
    "rare_token_dropout": "classification",
    "word_counts": "classification",
}


def _argument(default: Any, help: str, alias: str | None = None) -> Any:
    # HfArgumentParser passes the metadata to argparse, which accepts no other keys.
    return field(default=default, metadata={"help": help} | ({"aliases": [alias]} if alias else {}))


# Fields of SwitchConfig whose flag has another name.
FLAGS = {
    "dropout_rate": "dropout",
    "classifier_dropout": "dropout",
    "eval_capacity_factor": "capacity_factor_eval",
    "router_aux_loss_coef": "aux_loss_coef",
    "router_z_loss_coef": "z_loss_coef",
    "encoder_sparse_step": "sparse_step",
}


def _of_config(name: str, default: Any) -> Any:
    """The flag of a field of SwitchConfig, with its help and what None means (inf, for a number)."""
    none, help = RULES[name].none, OPTIONS[name].metadata["help"]
    if none:
        help += f"; {'inf' if isinstance(default, float) else 'none'} = {none}"
    for field_name, flag in FLAGS.items():
        help = help.replace(field_name, flag)
    return _argument(default, help)


@dataclass
class DataArguments:
    """Data and tokenizer."""

    dataset: str = _argument(
        "toy",
        "toy, mini_news, mini_reviews, ag_news, sst2, imdb, cola, mrpc, qqp, mnli, qnli, rte, en_hi, samanantar, "
        "tiny_stories, a folder of --data_dir, a hub id, or a CSV, TSV, JSONL or parquet file",
    )
    data_dir: str | None = _argument(
        None, "folder with <dataset>/{train,validation,test}.parquet; none = SWITCH_DATA_DIR, then the hub"
    )
    text_column: str | None = _argument(
        None, "column of texts, or two columns for pairs, comma-separated; none = found by name"
    )
    label_column: str | None = _argument(None, "column of classes in a file; none = found by name")
    target_column: str | None = _argument(None, "column of target texts, for translation; none = found by name")
    language: str | None = _argument(None, "subset of a data set on the hub, such as samanantar's hi, ta or bn")
    validation_size: float = _argument(
        0.05, "share of the training rows held out for validation, if the data set has no validation split"
    )
    num_samples: int | None = _argument(
        None, "number of training rows; none = all (toy: 1000); without this flag, the preset decides"
    )
    num_classes: int = _argument(3, "classes of the toy data set")
    vocab_size: int | None = _argument(None, "tokens in the vocabulary; none = 16000 (toy: 500)")
    tokenizer: str | None = _argument(
        None, "hub id, id@revision or folder of a tokenizer, such as ai4bharat/IndicBARTSS; none = train one"
    )
    target_tokenizer: str | None = _argument(
        None,
        "translation: tokenizer of target texts: own = train one on them, or a hub id or folder; none = one for both",
    )
    seq_len: int = _argument(16, "tokens per text; longer texts are cut")

    @property
    def source(self) -> DataSource:
        return DataSource.of(self)


@dataclass
class ModelArguments:
    """The shape and the routing of the model."""

    d_model: int = _of_config("d_model", 128)
    d_kv: int | None = _argument(None, "width of one attention head; none = d_model / num_heads")
    d_ff: int | None = _argument(None, "hidden width of one expert; none = 4 d_model")
    num_layers: int = _of_config("num_layers", 2)
    num_heads: int = _of_config("num_heads", 4)
    num_experts: int = _of_config("num_experts", 2)
    bigram_buckets: int = _of_config("bigram_buckets", 0)
    conv_width: int = _of_config("conv_width", 0)
    expert_residual: float | None = _argument(
        None, "scale of the residual connection around a sparse layer's experts, 0 to 1; none = 1, or as in --init_from"
    )
    sparse_step: int = _of_config("encoder_sparse_step", 1)
    num_decoder_layers: int | None = _of_config("num_decoder_layers", None)
    decoder_sparse_step: int | None = _of_config("decoder_sparse_step", None)
    attention_experts: AttentionExperts = _of_config("attention_experts", "none")
    attention_sparse_step: int = _of_config("attention_sparse_step", 1)
    position: Position = _of_config("position", "relative")
    relative_attention_slope: float = _of_config("relative_attention_slope", 0.0)
    cls_token: bool = _of_config("cls_token", False)
    classifier_head: Head = _of_config("classifier_head", "linear")
    tie_word_embeddings: bool = _of_config("tie_word_embeddings", True)
    dense_act_fn: Activation = _of_config("dense_act_fn", "relu")
    readout: Readout = _of_config("readout", "residual")
    pooling: Pooling = _of_config("pooling", "mean")
    embedding_norm: bool = _of_config("embedding_norm", True)
    dropout: float = _argument(0.1, "dropout on embeddings, attention and MLP outputs, and before the classifier")
    token_dropout: float = _of_config("token_dropout", 0.0)
    token_dropout_from: int = _of_config("token_dropout_from", 0)
    expert_dropout: float = _of_config("expert_dropout", 0.1)
    switch_dropout: float = _of_config("switch_dropout", 0.1)
    router_jitter_noise: float = _of_config("router_jitter_noise", 0.0)
    router_noise_eps: float = _of_config("router_noise_eps", 1e-2)
    router_bias: bool = _of_config("router_bias", False)
    router_priority: Priority = _of_config("router_priority", "position")
    capacity_factor: float = _of_config("capacity_factor", 1.0)
    capacity_factor_eval: float = _of_config("eval_capacity_factor", 2.0)
    expert_capacity: int | None = _of_config("expert_capacity", None)
    min_expert_capacity: int = _of_config("min_expert_capacity", 4)
    capacity_group: CapacityGroup = _of_config("capacity_group", "sequence")
    aux_loss_coef: float = _of_config("router_aux_loss_coef", 1e-2)
    z_loss_coef: float = _of_config("router_z_loss_coef", 1e-3)
    balance: Balance = _of_config("balance", "loss")
    balance_rate: float = _of_config("balance_rate", 1e-3)
    sequence_balance_coef: float = _of_config("sequence_balance_coef", 0.0)
    layer_loss_coef: float = _of_config("layer_loss_coef", 0.0)
    label_smoothing: float = _of_config("label_smoothing", 0.1)

    @property
    def is_dense(self) -> bool:
        """Whether no MLP has several experts."""
        return self.sparse_step == 0 or self.num_experts == 1


@dataclass
class TrainArguments:
    """How the model is trained."""

    task: Literal["classification", "mlm", "span_corruption", "translation", "clm"] = _argument(
        DEFAULT_TASK,
        "classification; mlm: masked LM; span_corruption: T5's pretraining; translation; clm: causal LM (defaults: "
        "en_hi and samanantar translation, tiny_stories clm)",
    )
    init_from: str | None = _argument(
        None, "start from the weights, tokenizer and shape of this checkpoint (folder, run, zip, hub id or id@revision)"
    )
    mlm_probability: float = _argument(0.15, "share of masked tokens with --task mlm or span_corruption")
    teachers: str | None = _argument(
        None,
        "classification: knowledge distillation from these checkpoints with the same classes, comma-separated; their "
        "probabilities are averaged",
    )
    teacher_coef: float = _argument(1.0, "weight of the distillation loss with --teachers")
    residual_decay: float = _argument(
        0.0,
        "steps over which the residual around the experts decreases from 1 to --expert_residual; below 1 = share of "
        "all steps",
    )
    rare_token_dropout: float = _argument(
        0.0,
        "classification: in training, a token that occurs n times becomes the unknown token with probability "
        "x / (x + n)",
    )
    word_counts: bool = _argument(
        False, "classification: after training, add naive Bayes log-odds of words and word pairs to the logits"
    )
    preset: Literal["none", "tiny", "small", "base"] | None = _argument(
        None, "sizes and settings by name; flags override it; default: small, for the toy none"
    )
    epochs: float = _argument(3.0, "passes over the training rows")
    max_steps: int | None = _argument(None, "maximum number of steps, if the epochs would take more")
    min_steps: int = _argument(0, "minimum number of steps, if the epochs would take fewer")
    total_iters: int | None = _argument(None, "exact number of steps, whatever the epochs")
    max_minutes: float | None = _argument(None, "time limit of training, in minutes")
    batch_size: int = _argument(32, "texts per batch")
    gradient_accumulation_steps: int = _argument(1, "batches per optimizer step")
    total_batch_size: int | None = _argument(
        None, "tokens per optimizer step, reached approximately by gradient accumulation"
    )
    optimizer: Literal["adafactor", "adamw"] = _argument("adafactor", "optimizer")
    lr: float | None = _argument(None, "learning rate; none = Adafactor with relative steps (adamw: 1e-3)")
    lr_schedule: Literal["constant", "linear", "cosine"] = _argument("linear", "decay of the learning rate")
    warmup: float = _argument(0.05, "steps of linear warm-up; below 1 = share of all steps")
    weight_decay: float = _argument(0.0, "weight decay")
    grad_clip: float = _argument(1.0, "maximum gradient norm; 0 = no clipping")
    adafactor_clip_threshold: float = _argument(1.0, "Adafactor's clipping threshold for updates")
    ema_decay: float = _argument(
        0.0,
        "evaluate and keep an exponential moving average of the weights with this decay per step; 0 = no average",
    )
    precision: Literal["float32", "bfloat16", "float16"] = _argument(
        "float32", "autocast dtype of matrix products; the router stays in float32"
    )
    compile: bool | None = _argument(None, "compile the model; none = on CUDA only")
    liger: bool = _argument(
        False, "causal and encoder-decoder models on CUDA: Liger's fused loss, without storing logits"
    )
    device: str | None = _argument(None, "cpu or cuda; none = cuda where there is one")
    seed: int = _argument(0, "seed of weights, data order and noise")
    output_dir: str | None = _argument(None, "folder of the run; none = runs/<dataset>-<date>-<time>")
    logging_steps: int | None = _argument(
        None, "steps between log lines of training metrics; none = at least 50 lines per run, at most 50 steps between"
    )
    eval_steps: int | None = _argument(
        None, "steps between evaluations, each with a checkpoint; none = every epoch", "--eval_check"
    )
    eval_iters: int | None = _argument(None, "number of validation batches per evaluation; none = all")
    save_total_limit: int | None = _argument(
        2,
        "number of checkpoints to keep, with optimizer state; none = all, for the drift view in Compare",
    )
    probe: str | None = _argument(None, "probe text: its routing is recorded at every evaluation")
    report_to: str = _argument("none", "none, tensorboard, wandb, or both, comma-separated")
    run_name: str | None = _argument(None, "name of the run in TensorBoard and W&B; none = its folder's")
    wandb_project: str = _argument("switch-transformers", "project on Weights & Biases")
    wandb_entity: str | None = _argument(None, "user or team on Weights & Biases; none = your own")

    @property
    def reporters(self) -> list[str]:
        """The distinct names in `report_to`."""
        return [name for name in dict.fromkeys(split_names(self.report_to)) if name != "none"]


GROUPS = (DataArguments, ModelArguments, TrainArguments)
