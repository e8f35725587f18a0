"""What a kind of model asks of Explore: a text that suits it, and which buttons stand below.

Try it: fitting_text(kind_of("SwitchForMaskedLM"), "", None)
"""

import secrets
from typing import Any

import gradio as gr

from switch_model import CheckpointError
from train.runs.run import Run, RunError
from ui.catalog.kinds import CLASSIFIER, FILLER, RESTORER, STORYTELLER, TRANSLATOR, Kind
from ui.catalog.models import ModelShelf
from ui.catalog.run_samples import validation_samples
from ui.catalog.samples import Sample, SampleLibrary
from ui.explore.detail_tabs import EXPERTS
from ui.explore.outputs import Controls

_EXAMPLES = [kind.example for kind in (TRANSLATOR, STORYTELLER, RESTORER, FILLER)]


def fitting_text(kind: Kind, text: str, sample: Sample | None) -> str:
    """The text, or an example of the kind where it is none that somebody wrote. Of one without a blank that the kind
    needs, the card of the answer says so."""
    borrowed = (
        not (text or "").strip()
        or (text in _EXAMPLES and text != kind.example)
        or (sample is not None and text == sample.text and sample.source != kind.samples)
    )
    if kind is CLASSIFIER:
        return text
    return kind.example if borrowed else text


def fitting_sample(
    shelf: ModelShelf, library: SampleLibrary, model: str | None, text: str, sample: Sample | None
) -> Sample | None:
    """A sample of a classifier's own classes, where the text is none that somebody wrote and is of another kind.

    None where the text fits, is a visitor's own, or no such sample is known.
    """
    if shelf.kind(model) is not CLASSIFIER:
        return None
    try:
        labels = shelf.load(model).labels
    except CheckpointError:  # The card of the answer says why it can't be opened.
        return None
    is_sample = sample is not None and text == sample.text
    if (text or "").strip() and text not in _EXAMPLES and not is_sample:
        return None
    known = sample is not None and sample.named_as_in(labels).label in labels
    if known:
        return None if is_sample else sample
    return library.first_of(labels) or _held_out(shelf, library, model)


def _held_out(shelf: ModelShelf, library: SampleLibrary, model: str) -> Sample | None:
    """The first row that a run kept from its model; None for the rows of a file, which may be another visitor's."""
    folder = shelf.folder(model)
    if folder.name != "best":
        return None
    run, source = Run(folder.parent), f"run {folder.parent.name}"
    try:
        if run.arguments().data.source.is_own:
            return None
    except RunError:
        return None
    return next(iter(validation_samples(run, source, CLASSIFIER)), None)


def controls_for(kind: Kind, text: str | None) -> Controls:
    """The controls for a kind. The panel of samples closes: it may show another kind's.

    Args:
        text: what goes into the box; None leaves it as it is.
    """
    classifies, writes = kind is CLASSIFIER, kind.writes
    return Controls(
        text=gr.update(placeholder=kind.asks, **({} if text is None else {"value": text})),
        run=gr.update(visible=not writes, value=kind.act),
        samples=gr.update(visible=False),
        source=gr.update(visible=classifies),
        generate=gr.update(visible=writes),
        stop=stop_button(False) | {"visible": writes},
        settings=gr.update(visible=writes),
        neighbours=gr.update(visible=classifies),
        # What a model writes is where a change of its experts shows best.
        details=gr.Tabs(selected=EXPERTS) if writes else gr.skip(),
        begin=begins(kind),
    )


def stop_button(able: bool) -> dict[str, Any]:
    """The button that ends writing. Its words too: a button that has just appeared may have lost them."""
    return gr.update(value="Stop", interactive=able)


def begins(kind: Kind) -> Any:
    """What begins the text of a model that writes: something new."""
    return secrets.token_hex(4) if kind.writes else gr.skip()
