"""The flags of a training run, from the dataclasses of train/arguments, read from command line or config file.

Try it: read_flags(["--dataset", "toy"], epilog="")
"""

import argparse
import difflib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from switch_model.commands import command
from switch_model.storage.hub import with_revision
from train.arguments.arguments import Arguments
from train.arguments.groups import FOR_THE_FORM, GROUPS
from train.arguments.presets import default_task, preset
from train.arguments.rules import check_flags
from train.arguments.values import HINTS, read_path, read_value

# argparse's message for an invalid value, and our names of the kinds of values.
BAD_VALUE = re.compile(r"argument (?P<flag>[^\s:/,]+)[^\s:]*: invalid (?P<kind>\w+) value: (?P<value>.*)", re.DOTALL)
KINDS = {"int": "a whole number", "positive": "a whole number", "natural": "a whole number", "float": "a number"}
SAID = re.compile(r"argument (?P<flag>[^\s:/,]+)[^\s:]*: (?P<said>'.*' is (not allowed|too large).*)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, without the list of all flags."""

    def error(self, message: str):
        self.exit(2, f"error: {in_words(message)}. See {self.prog} --help\n")

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        values, unknown = self.parse_known_args(args, namespace)
        flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if flags:
            near = [f"{flag}{did_you_mean(flag, self._option_string_actions)}" for flag in flags]
            self.error(f"there is no flag {', '.join(near)}")
        elif unknown:
            self.error(f"unknown argument: {' '.join(unknown)}")
        return values


class _TrainParser(Parser, HfArgumentParser):
    """The flags of training."""

    def add_argument(self, *flags: str, **options: Any) -> argparse.Action:
        # HfArgumentParser passes all metadata of a field to argparse.
        return super().add_argument(*flags, **{key: options[key] for key in options if key not in FOR_THE_FORM})


def in_words(message: str) -> str:
    """argparse's message for an invalid value, without Python terms."""
    if found := SAID.fullmatch(message):
        return f"{found['flag']} {found['said']}"
    found = BAD_VALUE.fullmatch(message)
    if found is None or found["kind"] not in KINDS:
        return message
    return f"{found['flag']} {found['value']} is not allowed: it must be {KINDS[found['kind']]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " (did you mean …?)" with the most similar known name; "" if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and keeps the line breaks of the list of commands."""


def read_flags(argv: list[str], epilog: str) -> tuple[Arguments, int | None]:
    """The arguments of a command line, and --max_runs (None = start at once).

    Exits with an error line for an unknown flag; raises ValueError for a config file that can't be read.
    """
    parser = _TrainParser(
        GROUPS,
        prog=command(),
        description="Train a Switch Transformer: classifier, translation, causal LM, masked LM or span corruption "
        "(--task). The hub is accessed with the token in HF_TOKEN, if set.",
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=as_path,
        help="YAML or JSON file of arguments, such as a run's arguments.json; flags override it",
    )
    parser.add_argument(
        "--max_runs", type=int, help="wait until fewer than this many runs of the same folder run; none = start at once"
    )
    parser.add_argument(
        "--revision", help="of --init_from's or --tokenizer's hub id: a branch, tag, commit or refs/pr/N"
    )
    for action in parser._actions:
        if action.dest == "help":
            continue
        # Only given flags override presets, so defaults are filled in later.
        if action.const is False:  # The --no_… flag that HfArgumentParser adds for a flag that is on by default.
            action.help = f"switch --{action.dest} off"
        else:
            action.help = f"{action.help} (default: {'none' if action.default is None else action.default})"
        action.default = argparse.SUPPRESS
        if action.dest == "compile":
            action.nargs, action.const = "?", True
        if action.dest in HINTS and action.const is not False:
            action.type = _reader(action.dest)
    flags = vars(parser.parse_args(argv))
    if (max_runs := flags.pop("max_runs", None)) is not None and max_runs < 1:
        parser.error(f"--max_runs {max_runs} is not allowed: it must be at least 1")
    revision = flags.pop("revision", None)
    written: dict[str, Any] = {}
    if path := flags.pop("config", None):
        written = _written(parser, path)
        if flags.get("preset", "none") != "none":
            # A preset flag overrides the file with all its arguments.
            dataset = flags.get("dataset", written.get("dataset", "toy"))
            task = flags.get("task", written.get("task", default_task(dataset)))
            written |= preset(flags["preset"], dataset, task)
    if "epochs" in flags:  # An explicit number of epochs is not extended by a file's or preset's min_steps.
        written["min_steps"] = 0
    given = written | flags
    if revision is not None:
        named = next((name for name in ("init_from", "tokenizer") if given.get(name)), None)
        if named is None:
            parser.error("--revision needs --init_from or --tokenizer")
        given[named] = with_revision(given[named], revision)
    check_flags(flags, given)
    return Arguments.resolve(given), max_runs


def _reader(name: str) -> Callable[[str], Any]:
    """`read_value` as an argparse type."""

    def read(text: str) -> Any:
        try:
            return read_value(name, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _written(parser: _TrainParser, path: str) -> dict[str, Any]:
    """The arguments in a YAML or JSON file, each parsed and checked like a flag.

    Raises ValueError with the file, the line and the argument.
    """
    values, lines = _read_config(path)
    actions = {flag.removeprefix("--"): action for flag, action in parser._option_string_actions.items()}
    known = {name: one.dest for name, one in actions.items() if one.dest in HINTS and one.const is not False}
    written: dict[str, Any] = {}
    for key, value in values.items():
        where = f"{path}, line {lines[key]}"
        if key not in known:
            raise ValueError(f"{where}: there is no argument {key}{did_you_mean(str(key), known)}.")
        if value is None and key == "preset":
            continue
        try:
            written[known[key]] = read_value(known[key], value)
        except ValueError as error:
            raise ValueError(f"{where}: {key} {error}.") from error
    return written


def _read_config(path: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The arguments in a file, and their lines. Raises ValueError when it can't be read."""
    try:
        # JSON is YAML, except for numbers such as 1e-3, which YAML reads as text; parsed like a flag, they are numbers.
        text = Path(path).read_text(encoding="utf-8")
        values, root = yaml.safe_load(text), yaml.compose(text)
    except FileNotFoundError as error:
        raise ValueError(f"--config: there is no file {path}.") from error
    except OSError as error:
        raise ValueError(f"--config {path} can't be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        raise ValueError(
            f"{where} is neither valid YAML nor JSON: check commas, colons, quotes and indentation there."
        ) from error
    if not isinstance(values, dict):
        raise ValueError(f"--config {path} must hold arguments, such as: num_experts: 8")
    if "config" in values:
        raise ValueError(f"--config {path} names another config: one file is enough.")
    lines = {key.value: key.start_mark.line + 1 for key, _ in root.value}
    lines = {key: lines.get(str(key), 1) for key in values}
    if Path(str(values.get("output_dir"))).resolve() == Path(path).resolve().parent:
        del values["output_dir"]  # The folder of the run that wrote this file.
    return values, lines


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for one command: no abbreviated flags, and defaults in its help."""
    return Parser(
        prog=command(name),
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def as_path(text: str) -> str:
    """`read_path` as an argparse type."""
    try:
        return read_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def as_text(text: str) -> str:
    """A text argument, with bytes that are not UTF-8 replaced, as on standard input."""
    return os.fsencode(text).decode("utf-8", "replace")


def positive(text: str) -> int:
    """A whole number of at least 1, as an argparse type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not allowed: it must be at least 1")
    return value


def natural(text: str) -> int:
    """A whole number of at least 0, as an argparse type."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is not allowed: it must be at least 0")
    return value


_OTHER_COMMANDS = (
    ("runs [FOLDER]", "all runs: state, data set, best metric, time"),
    ("stop RUN", "stop a run after its current step, with a checkpoint"),
    ("resume RUN", "resume a stopped run"),
    ("evaluate …", "metrics, confusion matrix and routing of a checkpoint"),
    ("analyze …", "analyse the routing of a whole data set"),
    ("predict …", "classify texts, generate text, or fill blanks"),
    ("package …", "make a small checkpoint folder with a model card from a finished run"),
    ("calibrate …", "calibrate a classifier's probabilities by temperature scaling on held-out rows"),
    ("publish …", "upload a checkpoint and its model card to the Hugging Face Hub"),
    ("export …", "write a checkpoint in a format that runs elsewhere, such as ONNX"),
    ("prune …", "rank a model's experts, and write a checkpoint without the lowest"),
    ("convert OLD.pt …", "convert a state dict into a checkpoint folder"),
    ("import SOURCE …", "convert a transformers SwitchTransformers checkpoint, such as google/switch-base-32"),
    ("sweep …", "search over any arguments, one run per trial"),
    ("compare-routers …", "dense, Switch, top-k and other routers at equal work, in one table"),
)
COMMANDS_HELP = "\nother commands (each has --help):\n" + "".join(
    f"  {command(used):<32} {what}\n" for used, what in _OTHER_COMMANDS
)
