"""Named outputs: what a handler returns as a named tuple, and the tab's components as the same tuple.

A field that is not given leaves its component as it is. Try it: outputs("Answer", "words", "plot")(words="yes")
"""

from collections import namedtuple
from typing import Any

import gradio as gr

SKIP = gr.skip()


def is_skipped(value: Any) -> bool:
    """Whether an output leaves its component as it is."""
    return isinstance(value, dict) and value == SKIP


def outputs(name: str, *fields: str) -> type[tuple]:
    """A named tuple whose fields are skipped unless they are given."""
    return namedtuple(name, fields, defaults=[SKIP] * len(fields))
