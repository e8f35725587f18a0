"""Routing recorded elsewhere, in the Compare tab: its grid, loads and measures; of two, how far they agree.

Try it: recorded("capture.jsonl", None, 0, 0, 0, 0).words
"""

from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from switch_model.traces.agreement import agreement
from switch_model.traces.measures import layer_measures
from switch_model.traces.opening import open_trace
from switch_model.traces.trace import TraceError
from train.analysis.agreement import agreement_table
from train.analysis.trace import facts_in_words, layer_table
from ui.compare.trace_grid import MAX_TOKENS, recorded_value
from ui.components.events import LAST
from ui.components.outputs import SKIP
from ui.components.routing_grid import create_routing_grid
from ui.look.html import heading, note, notice, quiet

ENDINGS = [".json", ".jsonl", ".csv", ".npy"]
_ABOUT = (
    "Which experts the tokens of a large model went to, recorded where it runs: an answer of vLLM or SGLang with "
    "routed experts, llama.cpp’s table, JSON lines, a NumPy array, or a record of this page. No model is needed."
)
_SHAPE = "The model’s numbers, for a file that does not say them (0 = it does); Enter reads it again:"
_EMPTY = "Open a trace: its grid and measures appear here."


class Recorded(NamedTuple):
    """What is shown of a trace: words, a text's grid and its number, measures, loads; agreement with a second."""

    words: Any = SKIP
    grid: Any = SKIP
    text: Any = SKIP
    layers: Any = SKIP
    loads: Any = SKIP
    agreement: Any = SKIP
    curve: Any = SKIP


def recorded(
    first: str | None, second: str | None, num_layers: float, top_k: float, num_experts: float, text: float
) -> Recorded:
    """A trace, and how far a second one of the same tokens agrees with it.

    Args:
        num_layers, top_k, num_experts: of the model; 0 = as the file says.
        text: which of its texts the grid shows.
    """
    from switch_model.plots.traces import agreement_by_layer, load_map

    shown = {"visible": False}
    if not first:
        return Recorded(quiet(_EMPTY), None, gr.update(**shown), "", gr.update(**shown), "", gr.update(**shown))
    shape = {"num_layers": int(num_layers or 0), "top_k": int(top_k or 0), "num_experts": int(num_experts or 0)}
    asked = {name: number or None for name, number in shape.items()}
    try:
        trace = open_trace(first, **asked)
    except TraceError as error:
        return Recorded(notice(str(error)), None, gr.update(**shown), "", gr.update(**shown), "", gr.update(**shown))
    texts = int(trace.text.max()) + 1
    index = min(max(int(text or 0), 0), texts - 1)
    measures = layer_measures(trace)
    words = heading(Path(first).name, 3) + quiet(f"{facts_in_words(trace)} The grid shows text {index}.")
    for said in trace.notes:
        words += note(said)
    if int((trace.text == index).sum()) > MAX_TOKENS:
        words += note(f"The grid shows the first {MAX_TOKENS:,} tokens of this text.")
    agreed, curve = "", gr.update(**shown)
    if second:
        try:
            found = agreement(trace, open_trace(second, **asked))
            agreed = heading(f"Agreement with {Path(second).name}", 3) + agreement_table(found, trace.top_k)
            curve = gr.update(value=agreement_by_layer(found, trace.top_k), visible=True)
        except TraceError as error:
            agreed = notice(str(error))
    return Recorded(
        words,
        recorded_value(trace, index),
        gr.update(value=index, maximum=texts - 1, visible=texts > 1),
        layer_table(measures),
        gr.update(value=load_map([one["load"] for one in measures], trace.layers), visible=True),
        agreed,
        curve,
    )


def create_traces() -> None:
    """Lay it out, folded, and connect it."""
    with gr.Accordion("Routing recorded elsewhere", open=False, elem_classes="card", elem_id="traces"):
        gr.HTML(quiet(_ABOUT), apply_default_css=False)
        with gr.Row(elem_classes="buttons"):
            one = gr.UploadButton("Open a trace…", file_types=ENDINGS, elem_id="open-trace", min_width=0, scale=0)
            other = gr.UploadButton("Compare with…", file_types=ENDINGS, elem_id="second-trace", min_width=0, scale=0)
        gr.HTML(quiet(_SHAPE), apply_default_css=False)
        with gr.Row(elem_classes="columns"):
            numbers = [
                gr.Number(0, label=label, precision=0, minimum=0, min_width=110)
                for label in ("Layers", "Experts per token", "Experts of a layer")
            ]
            text = gr.Number(0, label="Text", precision=0, minimum=0, min_width=90, visible=False)
        words = gr.HTML(quiet(_EMPTY), elem_id="trace-words", apply_default_css=False)
        grid = create_routing_grid(None, elem_id="trace-grid")
        layers = gr.HTML("", elem_id="trace-layers", apply_default_css=False)
        bare = {"show_label": False, "container": False, "buttons": [], "visible": False}
        loads = gr.Plot(elem_id="trace-loads", **bare)
        agreed = gr.HTML("", elem_id="trace-agreement", apply_default_css=False)
        curve = gr.Plot(elem_id="trace-curve", **bare)
    asked = {
        "fn": recorded,
        "inputs": [one, other, *numbers, text],
        "outputs": [*Recorded(words, grid, text, layers, loads, agreed, curve)],
        "concurrency_limit": 2,
        **LAST,
    }
    for event in (one.upload, other.upload, text.submit, *(number.submit for number in numbers)):
        event(**asked)
