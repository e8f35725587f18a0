"""Parse the values of arguments by their annotations, for flags, config files, the form and sweeps.

Try it: read_value("lr", "1e-3"), read_value("num_experts", "8"), in_words(kinds_of("optimizer"))
"""

import math
import os
import types
import typing
from typing import Any, Literal

from switch_model.storage.paths import local_path
from train.arguments.groups import GROUPS
from train.data.source import DataSource

# Arguments that may be paths.
PATHS = ("dataset", "data_dir", "tokenizer", "target_tokenizer", "init_from", "output_dir")
# From the annotations: HfArgumentParser rewrites the types of the fields themselves.
HINTS: dict[str, Any] = {name: hint for group in GROUPS for name, hint in typing.get_type_hints(group).items()}
TRUE, FALSE = ("true", "yes", "t", "y", "1"), ("false", "no", "f", "n", "0")
# Larger whole numbers are typing errors, and overflow in torch.
LARGEST = 2**48
WORDS = {int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "none", str: "text"}


def kinds_of(name: str) -> tuple[Any, ...]:
    """The alternatives of an argument's annotation: float | None -> (float, NoneType)."""
    hint = HINTS[name]
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def choices_of(name: str) -> list[str]:
    """The values of an argument with a fixed set of choices; otherwise none."""
    return [choice for kind in kinds_of(name) if typing.get_origin(kind) is Literal for choice in typing.get_args(kind)]


def takes_none(name: str) -> bool:
    """Whether an argument may be None."""
    return types.NoneType in kinds_of(name)


def takes_number(name: str) -> bool:
    """Whether an argument may be a number."""
    return bool({int, float} & set(kinds_of(name)))


def read_value(name: str, value: Any) -> Any:
    """A value from a flag or a file, converted to the argument's type.

    Raises ValueError with what the argument accepts, for a sentence that begins with its name.
    """
    written, kinds = "none" if value is None else str(value), kinds_of(name)
    text = written.strip()
    if text in (choices := choices_of(name)):
        return text
    if takes_none(name) and text.lower() == "none":
        return None
    if str in kinds and not choices:
        return read_path(written) if name in PATHS else written
    if bool in kinds and text.lower() in TRUE + FALSE:
        return text.lower() in TRUE
    return read_number(text, kinds)


def read_number(text: str, kinds: tuple[Any, ...]) -> int | float:
    """A number of one of the kinds; "8", "1e3" and "8.0" are whole numbers. Raises ValueError as `read_value` does."""
    try:
        number = float(text) if {int, float} & set(kinds) else math.nan
    except ValueError:
        number = math.nan
    if float in kinds and not math.isnan(number):
        return number
    if int not in kinds or not number.is_integer():
        raise ValueError(f"{text!r} is not allowed: it must be {in_words(kinds)}")
    if abs(number) > LARGEST:
        raise ValueError(f"{text!r} is too large")
    return int(number)


def read_path(text: str) -> str:
    """A path or a name, with ~ expanded. Raises ValueError for an empty one."""
    if not text.strip():
        raise ValueError("it is empty: give a path or a name (is a shell variable unset?)")
    return local_path(text)


def in_words(kinds: tuple[Any, ...]) -> str:
    """The accepted kinds in words: "a number or none"."""
    return " or ".join(
        ", ".join(typing.get_args(kind)) if typing.get_origin(kind) is Literal else WORDS[kind] for kind in kinds
    )


def is_of(value: Any, name: str) -> bool:
    """Whether a JSON value has a type that the argument accepts."""
    return any(_is_of(value, kind) for kind in kinds_of(name))


def _is_of(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    if kind is float:
        return value == "inf" or (isinstance(value, (int, float)) and not isinstance(value, bool))
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def anchored(values: dict[str, Any]) -> dict[str, Any]:
    """Arguments with absolute local paths, so that a run can be resumed from any folder."""
    found = dict(values)
    for name in PATHS:
        given = found.get(name)
        # A folder called toy is not the data set, and "own" is not a tokenizer's folder.
        is_path = os.path.exists(given or "") and given != "own"
        if name == "dataset":
            is_path = is_path and DataSource(given, found.get("data_dir")).is_own
        if given and (is_path or name in ("data_dir", "output_dir")):
            found[name] = os.path.abspath(given)
    return found
