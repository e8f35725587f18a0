"""What one visitor may ask for on a page that others use too, and what strangers may where it is served publicly.

Try it: VisitorLimits().apply(Arguments.resolve({"dataset": "toy"}))
"""

from dataclasses import dataclass, replace

from train.arguments.arguments import Arguments
from train.tasks.registry import TASKS

# Of one text that a model writes: tokens, texts followed at once, and seconds.
MAX_LENGTH, MAX_BEAMS, MAX_SECONDS = 200, 8, 60.0
# Arguments that reach into the machine that serves the page, or out of it: not for strangers.
LOCAL_ONLY = (
    "tokenizer", "target_tokenizer", "init_from", "report_to", "run_name", "wandb_project", "wandb_entity",
    "device", "compile",
)  # fmt: skip


@dataclass(frozen=True)
class VisitorLimits:
    """What a run started by a stranger may take, where the page is served publicly."""

    rows: int = 20_000
    steps: int = 1_500
    minutes: float = 10.0
    layers: int = 6
    width: int = 256
    experts: int = 64
    checkpoints: int = 6
    probe: int = 2_000
    queue: int = 4
    # Bytes of an uploaded file that is packed: a small one may hold any number.
    unpacked: int = 100_000_000

    def words(self) -> str:
        """The limits, for a visitor."""
        return (
            f"This page is public: a run takes at most {self.rows:,} rows, {self.steps:,} steps and "
            f"{self.minutes:g} minutes, and keeps {self.checkpoints} checkpoints; one run per visitor, {self.queue} in "
            "the queue. On your own machine there are no limits."
        )

    def apply(self, arguments: Arguments) -> Arguments:
        """The arguments, no larger than allowed. Raises ValueError for a model too large to start, and for arguments
        that reach into the machine."""
        model, data, train = arguments.model, arguments.data, arguments.train
        start = Arguments.resolve({"dataset": data.dataset, "preset": train.preset}).to_dict()
        for name in LOCAL_ONLY:
            if name != "init_from" and arguments.to_dict()[name] != start[name]:
                raise ValueError(f"--{name} can't be set on a public page.")
        for name, value, most in (
            ("num_layers", model.num_layers, self.layers),
            ("num_decoder_layers", model.num_decoder_layers or 0, self.layers),
            ("d_model", model.d_model, self.width),
            ("d_ff", model.d_ff or 0, 4 * self.width),
            ("d_expert", model.d_expert or 0, 4 * self.width),
            ("num_experts", model.num_experts * model.expert_granularity, self.experts),
            ("num_shared_experts", model.num_shared_experts, self.experts),
            ("upcycle", train.upcycle, self.experts),
            ("lora_rank", train.lora_rank, self.width),
            ("seq_len", data.seq_len, 512),
            ("batch_size", train.batch_size, 128),
            ("vocab_size", data.vocab_size or 0, 16_000),
            ("bigram_buckets", model.bigram_buckets, 200_000),
            ("d_kv", model.d_kv or 0, self.width),
            ("num_heads", model.num_heads, 16),
            ("gradient_accumulation_steps", train.gradient_accumulation_steps, 8),
            ("total_batch_size", train.total_batch_size or 0, 65_536),
            ("validation_size", data.validation_size, 0.5),
        ):
            if value > most:
                raise ValueError(f"--{name} {value} is too large for this public page: at most {most}.")
        if len(train.probe or "") > self.probe:
            raise ValueError(f"The probe text is too long for this public page: at most {self.probe:,} characters.")
        # The toy makes as many rows as it is asked for, and few when it is not.
        rows = (
            None
            if data.dataset == "toy" and data.num_samples is None
            else min(data.num_samples or self.rows, self.rows)
        )
        return replace(
            arguments,
            data=replace(data, num_samples=rows),
            train=replace(
                train,
                max_steps=min(train.max_steps or self.steps, self.steps),
                total_iters=train.total_iters and min(train.total_iters, self.steps),
                # Writing takes long, and an evaluation is not cut short.
                eval_iters=min(train.eval_iters or 16, 16) if TASKS[train.task].writes else train.eval_iters,
                max_minutes=min(train.max_minutes or self.minutes, self.minutes),
                save_total_limit=min(train.save_total_limit or self.checkpoints, self.checkpoints),
            ),
        )
