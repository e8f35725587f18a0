"""The arguments of a run: resolved with presets, validated, and written as a command.

Try it: python -m train --help
"""

import math
import shlex
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from switch_model.commands import command
from switch_model.config import SwitchConfig
from switch_model.storage.paths import local_path
from train.arguments.groups import GROUPS, DataArguments, ModelArguments, TrainArguments
from train.arguments.model_config import CHOICE, SHAPE, SPARSE_STEPS, adopt_shape, config_fields, in_flags
from train.arguments.presets import default_preset, default_task, of_router, preset
from train.arguments.rules import OF_WORDS, check_streaming, check_values, check_vectors
from train.arguments.values import PATHS
from train.data.source import Selection
from train.names import known_by, split_names

# Local folders and reporting: none of these changes the model.
PRIVATE = ("data_dir", "output_dir", "probe", "report_to", "run_name", "wandb_project", "wandb_entity")
# Experiment trackers, each a package of its name.
REPORTERS = ("tensorboard", "wandb")


@dataclass
class Arguments:
    """All arguments of one run, in three groups."""

    data: DataArguments
    model: ModelArguments
    train: TrainArguments

    @property
    def selection(self) -> Selection:
        """The rows of the run."""
        return Selection(
            self.data.source,
            validation_size=self.data.validation_size,
            num_samples=self.data.num_samples,
            seed=self.train.seed,
            num_classes=self.data.num_classes,
            vocab_size=self.data.vocab_size,
            seq_len=self.data.seq_len,
            streaming=self.data.streaming,
            shuffle_buffer=self.data.shuffle_buffer,
        )

    def to_dict(self) -> dict[str, Any]:
        """Flat, as the flags are. inf becomes "inf", because JSON can't hold it; the flag accepts that too."""
        flat = asdict(self.data) | asdict(self.model) | asdict(self.train)
        return {key: "inf" if value == math.inf else value for key, value in flat.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Arguments":
        """The inverse of `to_dict`; expands ~ in paths. Raises ValueError for an unknown argument."""
        known = {item.name for group in GROUPS for item in fields(group)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"No such argument: {', '.join(unknown)}.")
        values = {key: math.inf if value == "inf" else value for key, value in values.items()}
        values |= {name: local_path(values[name]) for name in PATHS if isinstance(values.get(name), str)}
        if isinstance(values.get("teachers"), str):
            values["teachers"] = ",".join(map(local_path, split_names(values["teachers"])))
        parts = [group(**{f.name: values[f.name] for f in fields(group) if f.name in values}) for group in GROUPS]
        return cls(*parts)

    def portable(self) -> dict[str, Any]:
        """`to_dict` without local folders and reporting: safe to share."""
        values = {key: value for key, value in self.to_dict().items() if key not in PRIVATE}
        for key in ("dataset", "init_from", "tokenizer", "target_tokenizer"):
            path = Path(values[key] or "")
            if path.is_absolute() or (key == "dataset" and values[key] and path.exists()):
                values[key] = known_by(path)
        if values["teachers"]:
            paths = map(Path, split_names(values["teachers"]))  # A hub id keeps its owner.
            values["teachers"] = ",".join(known_by(path) if path.is_absolute() else str(path) for path in paths)
        return values

    @classmethod
    def resolve(cls, given: dict[str, Any]) -> "Arguments":
        """Defaults, overridden by the preset, overridden by `given`. Raises ValueError as `from_dict` does."""
        dataset = given.get("dataset", "toy")
        task = given.get("task") or default_task(dataset)
        name = given.get("preset") or default_preset(dataset) or "none"
        chosen = {} if name == "none" else preset(name, dataset, task)
        if "epochs" in given:  # An explicit number of epochs is not extended.
            chosen.pop("min_steps", None)
        if given.get("features_column"):  # Vectors are no words.
            chosen = {key: value for key, value in chosen.items() if key not in OF_WORDS}
        chosen |= of_router(given.get("router", "switch"))
        return cls.from_dict(chosen | given | {"preset": name, "task": task})

    def command(self, portable: bool = True) -> str:
        """The shortest command that trains the same model; `portable`: without local paths."""
        values = self.portable() if portable else self.to_dict()
        start = {key: values[key] for key in ("dataset", "task")} | {"preset": values["preset"] or "none"}
        given = {} if start["dataset"] == "toy" else {"dataset": start["dataset"]}
        if start["task"] != default_task(start["dataset"]):
            given["task"] = start["task"]
        if start["preset"] != (default_preset(start["dataset"]) or "none"):
            given["preset"] = start["preset"]
        if values["router"] != "switch":
            given["router"] = start["router"] = values["router"]
        implied = Arguments.resolve(start).to_dict()
        # The initial model determines its shape; but a queued run must find exactly the arguments that were written.
        adopted = {*SHAPE} if values["init_from"] and portable else set()
        if (
            values["upcycle"] or values["sparse_step"] == 0
        ):  # Which layers have experts, and how tokens get them, the flags decide.
            adopted -= SPARSE_STEPS | CHOICE
        given |= {
            key: value
            for key, value in values.items()
            if value != implied[key] and key != "preset" and key not in adopted
        }
        return " ".join([command(), *(f"--{key} {shlex.quote(str(value))}" for key, value in given.items())])

    def again(self) -> str:
        """The command that repeats the run on this machine, in a new folder."""
        fresh = Arguments.from_dict(self.to_dict() | {"output_dir": None, "run_name": None})
        return fresh.command(portable=False)

    def check(self) -> None:
        """Raise ValueError for a value that is not allowed, naming the flag and what is allowed."""
        check_streaming(self.data, self.train)
        check_vectors(self.data, self.model, self.train)
        check_values(self.data, self.model, self.train)
        self.check_packages()
        self.config(vocab_size=1000, pad_token_id=0, labels=["a", "b"])

    def check_packages(self) -> None:
        """Raise ValueError for an unknown name in --report_to, and where a package that an argument needs is not
        installed."""
        if self.train.lora_rank and find_spec("peft") is None:
            raise ValueError(
                "--lora_rank needs a package that is not installed: pip install peft (or this package's [lora] extra)"
            )
        for name in self.train.reporters:
            if name not in REPORTERS:
                raise ValueError(
                    f"--report_to {self.train.report_to} is not allowed: it must be none, {', '.join(REPORTERS)}, or "
                    "both, comma-separated."
                )
            # A folder of that name, such as W&B makes, looks like a package without an origin.
            if getattr(find_spec(name), "origin", None) is None:
                raise ValueError(f"--report_to {name} needs a package that is not installed: pip install {name}")

    def adopt(self, source: SwitchConfig) -> None:
        """Take the shape of the initial model. Raises ValueError for a flag that contradicts it."""
        implied = Arguments.resolve(
            {"dataset": self.data.dataset, "preset": self.train.preset, "task": self.train.task}
        )
        for name in ("tokenizer", "target_tokenizer", "vocab_size"):
            if getattr(self.data, name) != getattr(implied.data, name):
                raise ValueError(f"--{name} can't be used with --init_from, which determines it: leave it out.")
        adopt_shape(self.model, implied.model, source)

    def config(
        self,
        vocab_size: int,
        pad_token_id: int,
        labels: list[str],
        bos_token_id: int | None = None,
        eos_token_id: int | None = None,
        decoder_vocab_size: int | None = None,
        restores_gaps: bool = False,
    ) -> SwitchConfig:
        """The model's configuration. Raises ValueError naming the flag that is wrong."""
        try:
            return SwitchConfig(
                vocab_size=vocab_size,
                decoder_vocab_size=decoder_vocab_size,
                share_embeddings=decoder_vocab_size is None,
                pad_token_id=pad_token_id,
                bos_token_id=bos_token_id,
                eos_token_id=eos_token_id,
                id2label=dict(enumerate(labels)) if labels else None,
                restores_gaps=restores_gaps,
                **config_fields(self.data, self.model),
            )
        except ValueError as error:
            raise ValueError(in_flags(error)) from error
