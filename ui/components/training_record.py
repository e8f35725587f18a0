"""A recorded training, checkpoint by checkpoint: the expert of every token of ten sentences, and the experts' loads.

Two tracks side by side, with and without a balance loss. The file is made by benchmarks/record_training.py, which
describes it; the script draws it. Try it: create_training_record()
"""

import functools
import json
from pathlib import Path
from typing import Any

import gradio as gr

RECORD = Path(__file__).parent.parent / "how_it_works" / "recorded_training.json"
_TEMPLATE = Path(__file__).with_suffix(".html")


@functools.cache
def read_record(path: Path = RECORD) -> dict[str, Any] | None:
    """The recorded training; None where the file is missing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def create_training_record() -> gr.HTML:
    """The component; its value is what `read_record` gives."""
    return gr.HTML(
        None,
        html_template=_TEMPLATE.read_text(encoding="utf-8"),
        js_on_load=_TEMPLATE.with_suffix(".js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="training-record",
    )
