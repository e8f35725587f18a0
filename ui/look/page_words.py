"""Errors in words of the page: an argument has the label of its field, and there is nothing of flags and commands.

Try it: page_words(DataError("Name another one with --label_column."), "my.csv")
"""

import re
from dataclasses import fields
from pathlib import Path

from train.arguments.groups import GROUPS
from train.data.errors import Unreachable

# Every argument in words, as the form has it. The folder of data sets is the page's own: no field asks for it.
LABELS = {item.name: item.metadata["label"] for group in GROUPS for item in fields(group)}
_NOT_ASKED = ("data_dir",)
_FLAG = re.compile(r"--([a-z]\w*)")
_IN_PICKER = re.compile(r"\bwith (?=--\w+_column\b)")
_SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z“])")
# A flag, a variable of the environment, a command.
_ELSEWHERE = re.compile(r"--[a-z][\w-]*|\b(?:SWITCH|HF|CUDA|WANDB)_[A-Z_]+\b|python -m \w+")
# A flag with a value behind it is a command, which no picker replaces.
_COMMAND = re.compile(r"--\w+_column ['\w]")
OTHERS = "Choose another data set, or upload a table."


def page_words(error: Exception | str, dataset: str = "") -> str:
    """What went wrong, without the sentences that only help who has a command line.

    Args:
        dataset: what was read; of a path, who uploaded it knows the last part.
    """
    name = Path(dataset).name if dataset else ""
    if isinstance(error, Unreachable):
        return f"{name or 'This data set'} is not reachable: {error.why}. {OTHERS}"
    said = str(error).replace(dataset, name) if dataset else str(error)
    sentences = (in_labels(sentence) for sentence in _SENTENCE.split(said) if not _COMMAND.search(sentence))
    kept = [sentence for sentence in sentences if not _ELSEWHERE.search(sentence)]
    return " ".join(kept) or f"{name or 'This'} can't be used here."


def in_labels(said: str) -> str:
    """The same with the labels of fields in place of the flags of arguments."""

    def label(flag: re.Match) -> str:
        return f"“{LABELS[flag[1]]}”" if flag[1] in LABELS and flag[1] not in _NOT_ASKED else flag[0]

    return _FLAG.sub(label, _IN_PICKER.sub("in ", said))
