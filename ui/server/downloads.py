"""Files that pass between a visitor and the disk: handed over with one click, and gone soon after.

Try it: hand_over(button, lambda: fresh_path("a.json"), [], "my-file")
"""

import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

# What was made for a download may lie so long: Gradio has copied it by then, for the hour that it keeps such copies.
KEPT_SECONDS = 120
# Around all that the app keeps for a while. Goes with the app.
_kept = tempfile.TemporaryDirectory(prefix="switch-explorer-", ignore_cleanup_errors=True)


def temporary_folder(prefix: str) -> tempfile.TemporaryDirectory:
    """A folder that goes with the app, or with who holds it."""
    return tempfile.TemporaryDirectory(prefix=prefix, dir=_kept.name)


def remove_temporary_folders() -> None:
    """At the app's end, at once: Python would first wait for all that is still being computed."""
    _kept.cleanup()


_made = temporary_folder("downloads-")


def fresh_path(name: str) -> Path:
    """Where a file of that name may be written to be downloaded. What was made some minutes ago goes away."""
    now = time.time()
    for folder in Path(_made.name).iterdir():
        if now - folder.stat().st_mtime > KEPT_SECONDS:
            for file in folder.iterdir():
                file.unlink(missing_ok=True)
            folder.rmdir()
    return Path(tempfile.mkdtemp(dir=_made.name)) / name


def discard_upload(path: str | Path) -> None:
    """Remove what a visitor uploaded once it was read; files that are not Gradio's stay where they are."""
    path = Path(path)
    if path.resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        path.unlink(missing_ok=True)


def hand_over(button: gr.Button, make: Callable[..., str | None], inputs: list[Any], name: str) -> None:
    """Let `button` download the file whose path `make` returns. `name` must be unique on the page.

    Gradio's own DownloadButton hands over the file that it had when it was clicked: none at first, an old one later.
    """
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    file = gr.DownloadButton(visible="hidden", elem_id=f"{name}-file")
    # A moment for the page to take the new file in.
    click = f"() => {{ setTimeout(() => document.querySelector('#{name}-file')?.click(), 100) }}"
    button.click(_in_words(make), inputs, [file], **quiet).success(None, None, None, js=click, **quiet)


def _in_words(make: Callable[..., str | None]) -> Callable[..., str | None]:
    """What writes a file, with what the disk has against it said on the page."""

    @wraps(make)
    def made(*inputs: Any) -> str | None:
        try:
            return make(*inputs)
        except OSError as error:
            raise gr.Error(f"The file can't be written: {error.strerror or error}.", print_exception=False) from error

    return made
