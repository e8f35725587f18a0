"""How a text is written: the settings below the box, Generate and Stop, and their values as one.

Try it: decoding_of(60, GREEDY, 1, 0, 1, 4, 0)
"""

from typing import Any

import gradio as gr

from switch_model.inference.decoding import Decoding
from ui.catalog.kinds import Kind
from ui.components.events import LAST
from ui.server.limits import MAX_BEAMS, MAX_LENGTH, MAX_SECONDS

GREEDY, SAMPLE, BEAMS = "greedy", "sampling", "beam search"


def create_buttons(kind: Kind) -> tuple[gr.Button, gr.Button]:
    """Generate and Stop."""
    small = {"visible": kind.writes, "min_width": 0, "scale": 0}
    generate = gr.Button("Generate", variant="primary", elem_id="generate", **small)
    return generate, gr.Button("Stop", interactive=False, elem_id="stop-writing", **small)


def create_settings(kind: Kind) -> tuple[gr.Accordion, list[Any]]:
    """How a text is written, folded away."""
    with gr.Accordion("Generation settings", open=False, visible=kind.writes, elem_id="writing-settings") as box:
        length = gr.Slider(1, MAX_LENGTH, 60, step=1, label="Max tokens", buttons=[], elem_id="writing-length")
        how = gr.Radio([GREEDY, SAMPLE, BEAMS], value=GREEDY, label="Decoding", elem_id="writing-how")
        with gr.Row(visible=False, elem_id="writing-drawing") as drawing:
            temperature = gr.Number(1.0, label="Temperature", minimum=0.05, maximum=5, step=0.1, min_width=90)
            top_k = gr.Number(40, label="Top k (0 = all)", precision=0, minimum=0, min_width=90)
            top_p = gr.Number(0.95, label="Top p (1 = all)", minimum=0.01, maximum=1, step=0.05, min_width=90)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90)
        beams = gr.Slider(2, MAX_BEAMS, 4, step=1, label="Beams", visible=False, buttons=[], elem_id="writing-beams")
    how.input(_fitting, [how], [drawing, beams], **LAST)
    return box, [length, how, temperature, top_k, top_p, beams, seed]


def _fitting(how: str) -> tuple[Any, Any]:
    return gr.update(visible=how == SAMPLE), gr.update(visible=how == BEAMS)


def decoding_of(
    length: float, how: str, temperature: float, top_k: float, top_p: float, beams: float, seed: float
) -> Decoding:
    """The settings of the page as one value, within what the page allows. Raises ValueError when one makes no sense."""

    def number(value: float | None, least: int, most: int) -> int:
        return min(max(int(value or 0), least), most)

    settings: dict[str, Any] = {"max_new_tokens": number(length, 1, MAX_LENGTH), "max_seconds": MAX_SECONDS}
    if how == BEAMS:
        settings["num_beams"] = number(beams, 2, MAX_BEAMS)
    elif how == SAMPLE:
        settings |= {
            "do_sample": True,
            "temperature": float(temperature or 0),
            "top_k": number(top_k, 0, 10**6),
            "top_p": float(top_p or 0),
            "seed": number(seed, 0, 2**53),
        }
    return Decoding(**settings)
