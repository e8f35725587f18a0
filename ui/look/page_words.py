"""Errors in words of the page: of columns it says in which picker they are chosen, and nothing of flags.

Try it: page_words(DataError("Name another one with --label_column."), "my.csv")
"""

import re
from pathlib import Path

from train.data.errors import Unreachable

# What the command line names by a flag, the page asks for in a picker.
PICKERS = {
    "--text_column": "“Column of texts”",
    "--label_column": "“Column of classes”",
    "--target_column": "“Column to write”",
}
_SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z“])")
# A flag, a variable of the environment, a command.
_ELSEWHERE = re.compile(r"--[a-z][\w-]*|\b[A-Z]+(?:_[A-Z]+)+\b|python -m \w+")
# A flag with a value behind it is a command, which no picker replaces.
_COMMAND = re.compile(r"--\w+_column ['\w]")
OTHERS = "Choose another data set, or upload a table."


def page_words(error: Exception, dataset: str = "") -> str:
    """What went wrong, without the sentences that only help who has a command line.

    Args:
        dataset: what was read; of a path, who uploaded it knows the last part.
    """
    name = Path(dataset).name if dataset else ""
    if isinstance(error, Unreachable):
        return f"{name or 'This data set'} is not reachable: {error.why}. {OTHERS}"
    said = str(error).replace(dataset, name) if dataset else str(error)
    kept = []
    for sentence in _SENTENCE.split(said):
        if not _COMMAND.search(sentence):
            for flag, picker in PICKERS.items():
                sentence = sentence.replace(f"with {flag}", f"in {picker}").replace(flag, picker)
        if not _ELSEWHERE.search(sentence):
            kept.append(sentence)
    return " ".join(kept) or f"{name or 'This'} can't be used here."
