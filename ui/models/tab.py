"""The Models tab: what is on the shelf, a page per model, and a stranger's checkpoint for its owner alone.

Try it: python app.py, then the tab “Models”
"""

from typing import Any, NamedTuple

import gradio as gr

from ui.catalog.private_models import PrivateModels
from ui.components.events import EACH, LAST, ONCE, SHOW
from ui.components.outputs import outputs
from ui.explore.outputs import Chosen
from ui.explore.present import Present
from ui.explore.tab import ExploreTab
from ui.look.html import facts, heading, notice, quiet
from ui.models.page import ModelPage, model_page

_ABOUT = (
    "A checkpoint is a folder: config.json, model.safetensors, tokenizer.json. Upload it zipped, or its files at once. "
    "It is opened in a process of its own with little memory and time; nothing in it can run code; only you can use "
    "it, and it is gone when you remove it, or close or reload this page. Models of transformers with several experts "
    "for each token (Mixtral, OLMoE, Qwen-MoE, gpt-oss and many more) are offered here when whoever starts this page "
    "opens one; “TinyStories, OLMoE” is of that kind."
)
_PLAIN = {"apply_default_css": False}
_BUTTON = {"min_width": 0, "scale": 0}

# What was done, this tab's picker, and Explore's.
Opened = outputs("Opened", "words", "model", "in_explore")
# A model's page, and whether it can be removed.
Page = outputs("Page", *ModelPage._fields, "remove")


class _Own(NamedTuple):
    """Where a checkpoint of one's own is opened."""

    hub_id: gr.Textbox
    upload: gr.UploadButton
    fetch: gr.Button
    words: gr.HTML


def create_models_tab(
    demo: gr.Blocks, private: PrivateModels, opened: gr.Tab, pages: gr.Tabs, explore: ExploreTab
) -> None:
    """Lay the tab out and connect it.

    Args:
        opened: the tab itself.
        pages: the page's tabs, to move to Explore.
        explore: what a model is opened in.
    """
    start = model_page(private.shelf, private.shelf.default)
    with gr.Row(elem_classes="pair"):
        with gr.Column(elem_classes="card", min_width=300, scale=3):
            own = _create_own()
        with gr.Column(elem_classes="card", min_width=300, scale=4):
            with gr.Row(elem_classes="card-head"):
                gr.HTML(heading("One model"), **_PLAIN)
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
            facts = gr.HTML(start.facts, elem_id="model-facts", **_PLAIN)
            with gr.Row(elem_classes="buttons"):
                to_explore = gr.Button("Open in Explore", elem_id="explore-model", **_BUTTON)
                remove = gr.Button("Remove", visible=False, elem_id="remove-model", **_BUTTON)
    card, config = _create_card(start, opened)

    def show(key: str | None, request: gr.Request) -> Any:
        removable = gr.update(visible=private.owns(request.session_hash, key))
        return Page(*model_page(private.shelf, key), remove=removable)

    def refresh(chosen: str | None, request: gr.Request) -> Any:
        return private.offer(request.session_hash, chosen)

    def leave(request: gr.Request) -> None:
        private.forget(request.session_hash)

    def move(key: str | None) -> tuple[Any, Any]:
        return gr.Tabs(selected="explore"), gr.update(value=key)

    showing = {"fn": show, "inputs": [model], "outputs": [*Page(facts, card, config, remove)], **LAST}
    _connect_own(private, own, Opened(own.words, model, explore.model), showing)
    _connect_remove(private, remove, Opened(own.words, model, explore.model), explore, showing)
    model.input(**showing)
    model.focus(refresh, [model], [model], **LAST)
    demo.unload(leave)
    moved = to_explore.click(move, [model], [pages, explore.model], **LAST)
    moved.success(**explore.choosing).then(**explore.drawing)


def _create_card(start: ModelPage, opened: gr.Tab) -> tuple[gr.Markdown, gr.Code]:
    """A model's card and its configuration, each loaded once it is looked at."""
    with gr.Accordion("Model card", open=True, elem_classes="card"):
        card = gr.Markdown(start.card, visible=False, elem_id="model-card")
    with gr.Accordion("Configuration", open=False, elem_classes="card", elem_id="configuration") as folded:
        shown = {"interactive": False, "show_label": False, "visible": False}
        config = gr.Code(start.config, language="json", elem_id="model-config", **shown)
    opened.select(**SHOW, outputs=[card], **EACH)
    folded.expand(**SHOW, outputs=[config], **EACH)
    return card, config


def _create_own() -> _Own:
    gr.HTML(heading("Open a checkpoint of your own"), **_PLAIN)
    gr.HTML(quiet(_ABOUT), **_PLAIN)
    with gr.Row(elem_classes="columns"):
        hub_id = gr.Textbox(
            label="A repository on the Hugging Face Hub", placeholder="owner/name or owner/name@revision", max_lines=1
        )
    with gr.Row(elem_classes="buttons"):
        upload = gr.UploadButton(
            "Upload a zip or files…",
            file_count="multiple",
            variant="primary",
            elem_id="upload-checkpoint",
            **_BUTTON,
        )
        fetch = gr.Button("Fetch from the Hub", elem_id="fetch-checkpoint", **_BUTTON)
    return _Own(hub_id, upload, fetch, gr.HTML("", elem_id="own-model-said", **_PLAIN))


def _connect_own(private: PrivateModels, own: _Own, opened: Any, showing: dict[str, Any]) -> None:
    """A checkpoint that is uploaded, or fetched from the Hub, is opened and shown."""

    def answer(key: str | None, words: str, session: str) -> Any:
        if key is None:
            return Opened(words)
        choices = private.choices(session)
        return Opened(words, gr.update(choices=choices, value=key), gr.update(choices=choices))

    def receive(files: list[Any] | None, request: gr.Request) -> Any:
        return answer(*private.receive(files, "", request.session_hash), request.session_hash)

    def fetch_hub(hub: str, request: gr.Request) -> Any:
        if (hub or "").strip().count("/") != 1:
            return Opened(notice("Name a repository as owner/name."))
        return answer(*private.receive(None, hub, request.session_hash), request.session_hash)

    for begin, handler, source in ((own.upload.upload, receive, own.upload), (own.fetch.click, fetch_hub, own.hub_id)):
        begun = begin(lambda: facts("Opening it in a process of its own …"), None, [own.words], **ONCE)
        begun.then(handler, [source], [*opened], concurrency_limit=2, **ONCE).then(**showing)


def _connect_remove(
    private: PrivateModels, remove: gr.Button, opened: Any, explore: ExploreTab, showing: dict[str, Any]
) -> None:
    """A model of one's own goes, and Explore shows its text with another one."""

    def close(key: str | None, in_explore: str | None, request: gr.Request) -> Any:
        session = request.session_hash
        said = private.remove(session, key)
        return Opened(said, private.offer(session, key), private.offer(session, in_explore))

    def follow(key: str | None, text: str, sample: Any, present: Present, run: str, request: gr.Request) -> Any:
        """Explore's text anew, if it was shown with the model that went; a saved record needs none."""
        if present.view is None or present.view.model in ("", key):
            return Chosen()
        return explore.choosing["fn"](key, text, sample, present, run, request)

    removed = remove.click(close, [opened.model, opened.in_explore], [*opened], **ONCE).then(**showing)
    removed.then(**explore.choosing | {"fn": follow}).then(**explore.drawing)
