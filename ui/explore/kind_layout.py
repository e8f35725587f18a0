"""What a kind of model asks of Explore: a text that suits it, and which buttons stand below.

Try it: fitting_text(kind_of("SwitchForMaskedLM"), "", None)
"""

import secrets
from typing import Any

import gradio as gr

from switch_model.inference.mask_filler import has_blank
from switch_model.inference.sentinels import has_gap
from ui.catalog.kinds import CLASSIFIER, FILLER, RESTORER, STORYTELLER, TRANSLATOR, Kind
from ui.catalog.samples import Sample
from ui.explore.outputs import Controls


def fitting_text(kind: Kind, text: str, sample: Sample | None) -> str:
    """The text, or an example of the kind where it is none that somebody wrote for it."""
    examples = [other.example for other in (TRANSLATOR, STORYTELLER, RESTORER, FILLER) if other is not kind]
    borrowed = (
        not (text or "").strip()
        or text in examples
        or (sample is not None and text == sample.text and sample.source != kind.samples)
    )
    if kind is CLASSIFIER:
        return text
    without = (kind is FILLER and not has_blank(text or "")) or (kind is RESTORER and not has_gap(text or ""))
    return kind.example if borrowed or without else text


def controls_for(kind: Kind, text: str | None) -> Controls:
    """The controls for a kind. The panel of samples closes: it may show another kind's.

    Args:
        text: what the box shall hold; None leaves it as it is.
    """
    classifies, writes = kind is CLASSIFIER, kind.writes
    return Controls(
        text=gr.update(placeholder=kind.asks, **({} if text is None else {"value": text})),
        run=gr.update(visible=not writes, value=kind.act),
        samples=gr.update(visible=False),
        source=gr.update(visible=classifies),
        generate=gr.update(visible=writes),
        stop=gr.update(visible=writes, interactive=False),
        settings=gr.update(visible=writes),
        neighbours=gr.update(visible=classifies),
        begin=begins(kind),
    )


def begins(kind: Kind) -> Any:
    """What begins the text of a model that writes: something new."""
    return secrets.token_hex(4) if kind.writes else gr.skip()
