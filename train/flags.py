"""The flags of a training run, from the dataclasses of train/arguments.py: read from a command line or a config file.

Try it: read_flags(["--dataset", "toy"], epilog="")
"""

import argparse
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from train.arguments import GROUPS, Arguments
from train.presets import default_task, preset


class Parser(argparse.ArgumentParser):
    """Says what is wrong in a line; the list of all flags is one --help away."""

    def error(self, message: str):
        self.exit(2, f"error: {message}. See {self.prog} --help\n")


class _TrainParser(Parser, HfArgumentParser):
    pass


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and leaves the list of commands as it is written."""


def read_flags(argv: list[str], epilog: str) -> tuple[Arguments, int | None]:
    """The arguments that a command line stands for, and how many runs may run at once (None = start right away).

    Ends the process with a line when a flag is unknown; raises ValueError for a config file that can't be read.
    """
    parser = _TrainParser(
        GROUPS,
        prog="python -m train",
        description="Train a Switch Transformer that classifies texts, translates, writes on, fills blanks or restores "
        "gaps (--task). The hub is asked with the token in HF_TOKEN, where that is set.",
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--config", help="a YAML or JSON file of arguments, such as a run's arguments.json; flags win")
    parser.add_argument(
        "--max_runs", type=int, help="wait until fewer than so many runs of the same folder run; none = start at once"
    )
    # From the annotations: HfArgumentParser has rewritten the types of the fields themselves.
    hints = {name: hint for group in GROUPS for name, hint in typing.get_type_hints(group).items()}
    optional = {name for name, hint in hints.items() if types.NoneType in typing.get_args(hint)}
    for action in parser._actions:
        if action.dest == "help":
            continue
        # Only what was really given shall win over presets: defaults are put in afterwards.
        if isinstance(action, argparse._StoreFalseAction):  # What HfArgumentParser adds beside a flag that is on.
            action.help = f"switch --{action.dest} off"
        else:
            action.help = f"{action.help} (default: {'none' if action.default is None else action.default})"
        action.default = argparse.SUPPRESS
        if action.dest == "compile":
            action.nargs, action.const = "?", True
        if action.dest in optional and action.choices is None:
            action.type = _or_none(action.type)
    flags = vars(_known_only(parser, argv))
    max_runs = flags.pop("max_runs", None)
    if max_runs is not None and max_runs < 1:
        parser.error(f"--max_runs {max_runs} is not allowed: it must be at least 1")
    written: dict[str, Any] = {}
    if path := flags.pop("config", None):
        written = vars(_known_only(parser, flags_in_file(path)))
        if flags.get("preset", "none") != "none":
            # A flag wins over the file, hence all that this flag stands for.
            dataset = flags.get("dataset", written.get("dataset", "toy"))
            task = flags.get("task", written.get("task", default_task(dataset)))
            written |= preset(flags["preset"], dataset, task)
    return Arguments.resolve(written | flags), max_runs


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def converted(text: str) -> Any:
        return None if text.lower() == "none" else convert(text)

    converted.__name__ = getattr(convert, "__name__", "value")  # argparse puts it into its message.
    return converted


def _known_only(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    values, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(f"unknown: {' '.join(unknown)}")
    return values


def flags_in_file(path: str) -> list[str]:
    """The arguments in a YAML or JSON file, as flags: so they are read, checked and refused as flags are."""
    try:
        # JSON is YAML, but for numbers such as 1e-3, which YAML takes for text; as a flag they are numbers again.
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"--config {path} must hold arguments, such as: num_experts: 8")
    if "config" in values:
        raise ValueError(f"--config {path} names another config: one file is enough.")
    if Path(str(values.get("output_dir"))).resolve() == Path(path).resolve().parent:
        del values["output_dir"]  # The run that wrote this file lies there.
    values = {key: "none" if value is None and key != "preset" else value for key, value in values.items()}
    return [f"--{key}={value}" for key, value in values.items() if value is not None]


def command_parser(command: str, description: str) -> argparse.ArgumentParser:
    return Parser(
        prog=f"python -m train {command}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not allowed: it must be at least 1")
    return value


def natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is not allowed: it must be at least 0")
    return value
