"""A button that makes a file and hands it over, in one click.

Gradio's own DownloadButton hands over the file that it had when it was clicked: none at first, an old one later.
Try it: hand_over(button, lambda: "a/file.json", [], "my-file")
"""

from collections.abc import Callable
from typing import Any

import gradio as gr


def hand_over(button: gr.Button, make: Callable[..., str | None], inputs: list[Any], name: str) -> None:
    """Let `button` download the file whose path `make` returns; None = none. `name` must be unique on the page."""
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    file = gr.DownloadButton(visible="hidden", elem_id=f"{name}-file")
    # A moment for the page to take the new file in.
    click = f"() => {{ setTimeout(() => document.querySelector('#{name}-file')?.click(), 100) }}"
    button.click(make, inputs, [file], **quiet).success(None, None, None, js=click, **quiet)
