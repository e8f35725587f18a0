"""The Models tab: what is on the shelf, a page per model, and a stranger's checkpoint for its owner alone.

What a visitor opens lies in a folder of their session, is offered to nobody else, and goes when they leave.
Try it: python app.py, then the tab “Models”
"""

import json
import shutil
import tempfile
import threading
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from transformers import PreTrainedTokenizerFast

from switch_model import CheckpointError
from switch_model.storage.tokenizer_io import target_of
from train.evaluation.reliance import known, sentences
from train.words import counted
from ui.catalog.kinds import CLASSIFIER
from ui.catalog.models import LoadedModel, ModelShelf, size_of
from ui.catalog.sandbox import examine
from ui.explore.tab import ExploreTab
from ui.server.downloads import discard_upload, temporary_folder
from ui.views.view import View

# Checkpoints of visitors at once, all together, and of one visitor.
MAX_PRIVATE, MAX_OWN = 16, 3
_ABOUT = (
    "A checkpoint is a folder: config.json, model.safetensors, tokenizer.json. Upload it zipped, or its files at once. "
    "It is opened in a process of its own with little memory and time; nothing in it can run code; only you can use "
    "it, and it is gone when you remove it, or close or reload this page."
)


class PrivateModels:
    """The handlers of the tab, and which visitor's session has opened what."""

    def __init__(self, shelf: ModelShelf):
        self.shelf = shelf
        self._own: dict[str, dict[str, Path]] = {}  # Session -> key -> folder.
        self._lock = threading.Lock()
        # Goes with the app, whatever visitors leave behind.
        self._scratch = temporary_folder("checkpoints-")

    def choices(self, session: str | None) -> list[tuple[str, str]]:
        """Models for this visitor's pickers."""
        own = [(f"{self.shelf.titled(key)} (yours)", key) for key in self._own.get(session, {})]
        return [*self.shelf.choices(), *own]

    def classifiers(self, session: str | None) -> list[tuple[str, str]]:
        """The same of classifiers alone."""
        return [(title, key) for title, key in self.choices(session) if self.shelf.kind(key) is CLASSIFIER]

    def offer(
        self,
        session: str | None,
        chosen: str | None,
        besides: Sequence[tuple[str, str]] = (),
        classifiers: bool = False,
    ) -> Any:
        """A picker as this visitor may use it now: what was chosen stays, or the default model comes in its place.

        `besides`: (title, key) of what is on offer there alone; `classifiers`: no models of other kinds.
        """
        choices = [*(self.classifiers(session) if classifiers else self.choices(session)), *besides]
        there = chosen in (key for _, key in choices)
        default = self.shelf.default_classifier if classifiers else self.shelf.default
        return gr.update(choices=choices, value=chosen if there else default)

    def owns(self, session: str | None, key: str | None) -> bool:
        """Whether a model is this visitor's own."""
        return key in self._own.get(session, {})

    def remove(self, session: str | None, key: str | None) -> str:
        """Close one of the visitor's own models: what to say."""
        with self._lock:
            folder = self._own.get(session, {}).pop(key, None)
        if folder is None:
            return _notice("Only a model that you opened yourself can be removed.")
        title = self.shelf.title(key)
        self.shelf.remove(key)
        shutil.rmtree(folder, ignore_errors=True)
        return f'<p class="facts" role="status">{escape(title)} is removed.</p>'

    def receive(self, files: list[Any] | None, hub_id: str, session: str) -> tuple[str | None, str]:
        """Open what was uploaded, or a hub repository: (key of the new model, what to say)."""
        paths = [Path(getattr(file, "name", file)) for file in files or []]
        if len(self._own.get(session, {})) >= MAX_OWN:
            return None, _notice(f"You have {MAX_OWN} models open: remove one first.")
        with self._lock:
            held = sum(map(len, self._own.values()))
        if held >= MAX_PRIVATE:
            return None, _notice("Too many visitors have models open just now. Try again in some minutes.")
        folder = Path(tempfile.mkdtemp(dir=self._scratch.name))
        try:
            found = examine(paths, folder, None if paths else hub_id.strip())
            name = (
                hub_id.strip() if not paths else paths[0].name.removesuffix(".zip") if len(paths) == 1 else "uploaded"
            )
            key = self.shelf.add_private(folder, name[:40])
        except CheckpointError as error:
            shutil.rmtree(folder, ignore_errors=True)
            return None, _notice(str(error))
        finally:
            for path in paths:
                discard_upload(path)
        with self._lock:
            self._own.setdefault(session, {})[key] = folder
        return key, f'<p class="facts" role="status">Opened in {found["seconds"]:.1f} s, for you alone.</p>'

    def forget(self, session: str | None) -> None:
        """The visitor left: their models go."""
        with self._lock:
            folders = self._own.pop(session, {})
        for key, folder in folders.items():
            self.shelf.remove(key)
            shutil.rmtree(folder, ignore_errors=True)

    def page(self, key: str | None) -> tuple[str, str, str]:
        """A model's page: (facts as HTML, its card as Markdown, its configuration as JSON)."""
        try:
            loaded = self.shelf.load(key)
        except CheckpointError as error:
            return _notice(str(error)), "", ""
        config = loaded.config.to_dict()
        facts = facts_html(loaded) + reliance_html(loaded, self.shelf.evaluation(key))
        return facts, self.shelf.card(key), json.dumps(config, indent=2, default=str)


def facts_html(loaded: LoadedModel) -> str:
    """Size, layers, routing, classes and tokenizer of a model as a table."""
    config, reader = loaded.config, loaded.pipeline.tokenizer
    writer = target_of(reader)
    capacity = f"{config.eval_capacity_factor:g} × an even share" if config.eval_capacity_factor else "no limit"
    capacity = f"{config.expert_capacity} slots" if config.expert_capacity else capacity
    labels = ", ".join(config.labels[:12]) + (f" and {len(config.labels) - 12} more" if len(config.labels) > 12 else "")
    rows = {
        "size": size_of(loaded.pipeline),
        "sparse layers": ", ".join(config.sparse_layers) or "none",
        "widths": f"hidden {config.d_model}, expert {config.d_ff}, {config.num_heads} heads of {config.d_kv}",
        "capacity in evaluation": f"{capacity}, counted per {config.capacity_group}",
        **({"classes": labels} if loaded.kind is CLASSIFIER else {"kind": f"it {loaded.kind.does}"}),
        "tokenizer": f"{_vocabulary(reader)}, reads {reader.model_max_length:,} of a text",
        **({} if writer is reader else {"target tokenizer": _vocabulary(writer)}),
    }
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return f'<div class="run-diff"><table><tbody>{lines}</tbody></table></div>'


def reliance_html(loaded: LoadedModel, evaluation: dict[str, Any]) -> str:
    """What the model's evaluation found of how much it relies on its experts; the table stands in its card."""
    if not loaded.config.sparse_layers:
        said = "This model has no experts."
    elif (found := known(evaluation)) is not None:
        said = " ".join([*sentences(found), f"({counted(found.rows, 'row', 'rows')} of {_rows_of(evaluation)})"])
    else:
        where = "The Analyse tab measures it, and so does" if loaded.kind is CLASSIFIER else "It is measured by"
        said = f"Nobody has measured it yet. {where} “python -m train evaluate”."
    return f'<h3>Do its experts matter?</h3><p class="facts" id="model-reliance">{escape(said)}</p>'


def _rows_of(evaluation: dict[str, Any]) -> str:
    return f"{evaluation.get('dataset', 'its data')}, {evaluation.get('split', 'all rows')}"


def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> str:
    return f"{type(tokenizer.backend_tokenizer.model).__name__}, {len(tokenizer):,} tokens"


def _notice(message: str) -> str:
    return f'<p class="notice" role="alert">{escape(message)}</p>'


# -- layout -----------------------------------------------------------------------------------------------------------


def create_models_tab(demo: gr.Blocks, private: PrivateModels, pages: gr.Tabs, explore: ExploreTab) -> None:
    """Lay the tab out and connect it.

    Args:
        pages: the page's tabs, to move to Explore.
        explore: what a model is opened in.
    """
    start = private.page(private.shelf.default)
    with gr.Row(elem_classes="pair"):
        with gr.Column(elem_classes="card", min_width=300, scale=3):
            gr.HTML("<h2>Open a checkpoint of your own</h2>", apply_default_css=False)
            gr.HTML(f'<p class="facts">{_ABOUT}</p>', apply_default_css=False)
            with gr.Row(elem_classes="columns"):
                hub_id = gr.Textbox(
                    label="A repository on the Hugging Face Hub",
                    placeholder="owner/name or owner/name@revision",
                    max_lines=1,
                )
            with gr.Row(elem_classes="buttons"):
                upload = gr.UploadButton(
                    "Upload a zip or files…",
                    file_count="multiple",
                    variant="primary",
                    min_width=0,
                    scale=0,
                    elem_id="upload-checkpoint",
                )
                fetch = gr.Button("Fetch from the Hub", min_width=0, scale=0, elem_id="fetch-checkpoint")
            said = gr.HTML("", apply_default_css=False, elem_id="own-model-said")
        with gr.Column(elem_classes="card", min_width=300, scale=4):
            with gr.Row(elem_classes="card-head"):
                gr.HTML("<h2>One model</h2>", apply_default_css=False)
                model = gr.Dropdown(
                    private.choices(None),
                    value=private.shelf.default,
                    label="Model",
                    show_label=False,
                    container=False,
                    filterable=False,
                    min_width=160,
                    elem_id="shelf-model",
                )
            facts = gr.HTML(start[0], apply_default_css=False, elem_id="model-facts")
            with gr.Row(elem_classes="buttons"):
                opened = gr.Button("Open in Explore", min_width=0, scale=0, elem_id="explore-model")
                remove = gr.Button("Remove", visible=False, min_width=0, scale=0, elem_id="remove-model")
    with gr.Accordion("Model card", open=True, elem_classes="card"):
        card = gr.Markdown(start[1], elem_id="model-card")
    with gr.Accordion("Configuration", open=False, elem_classes="card"):
        config = gr.Code(start[2], language="json", interactive=False, show_label=False, elem_id="model-config")

    def receive(files: list[Any] | None, request: gr.Request) -> tuple[Any, ...]:
        return answer(*private.receive(files, "", request.session_hash), request.session_hash)

    def fetch_hub(hub: str, request: gr.Request) -> tuple[Any, ...]:
        if (hub or "").strip().count("/") != 1:
            return _notice("Name a repository as owner/name."), gr.skip(), gr.skip()
        return answer(*private.receive(None, hub, request.session_hash), request.session_hash)

    def answer(key: str | None, words: str, session: str) -> tuple[Any, ...]:
        if key is None:
            return words, gr.skip(), gr.skip()
        choices = private.choices(session)
        return words, gr.update(choices=choices, value=key), gr.update(choices=choices)

    def refresh(chosen: str | None, request: gr.Request) -> Any:
        return private.offer(request.session_hash, chosen)

    def show(key: str | None, request: gr.Request) -> tuple[Any, ...]:
        return *private.page(key), gr.update(visible=private.owns(request.session_hash, key))

    def close(key: str | None, in_explore: str | None, request: gr.Request) -> tuple[Any, ...]:
        session = request.session_hash
        said = private.remove(session, key)
        return said, private.offer(session, key), private.offer(session, in_explore)

    def follow(key: str | None, text: str, sample: Any, view: View | None, request: gr.Request) -> tuple[Any, ...]:
        """Explore's text anew, if it was shown with the model that went; a saved record needs none."""
        if view is None or view.model in ("", key):
            return (gr.skip(),) * len(explore.choosing["outputs"])
        return explore.choosing["fn"](key, text, sample, view, request)

    def leave(request: gr.Request) -> None:
        private.forget(request.session_hash)

    def move(key: str | None) -> tuple[Any, Any]:
        return gr.Tabs(selected="explore"), gr.update(value=key)

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    outputs, shown = [said, model, explore.model], [facts, card, config, remove]
    waiting = "<p class=facts role=status>Opening it in a process of its own …</p>"
    for begin, handler, source in ((upload.upload, receive, upload), (fetch.click, fetch_hub, hub_id)):
        begun = begin(lambda: waiting, None, [said], **quiet)
        begun.then(handler, [source], outputs, concurrency_limit=2, **quiet).then(show, [model], shown, **quiet)
    model.input(show, [model], shown, **quiet)
    model.focus(refresh, [model], [model], **quiet)
    removed = remove.click(close, [model, explore.model], outputs, **quiet).then(show, [model], shown, **quiet)
    removed.then(**explore.choosing | {"fn": follow}).then(**explore.picture)
    demo.unload(leave)
    opened.click(move, [model], [pages, explore.model], **quiet).success(**explore.choosing).then(**explore.picture)
