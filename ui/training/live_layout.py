"""The page of a run being watched: head and buttons, learning, a text being routed anew, partners, log.

Try it: python app.py, then the tab “Train”, “Live”
"""

from typing import Any

import gradio as gr

from ui.components.events import LAST, ONCE
from ui.look.html import heading
from ui.training.live_run import NO_PROBE, NOTHING_YET, LiveRun, Plots, Tick
from ui.training.written_samples import NONE_YET

POLL_SECONDS = 2.0
_BARE = {"show_label": False, "container": False}


def create_live_run(demo: gr.Blocks, handlers: LiveRun, tab: gr.Tab, watched: gr.Dropdown) -> gr.Button:
    """Lay it out and connect it. Returns the button that opens the run in Explore, for who owns that tab."""
    # No State: without the queue, whose stream costs both sides more than the answers, Gradio sees no State change.
    seen, drawn = gr.State(""), gr.Textbox(visible="hidden", elem_id="drawn")
    tick, words, problem = _create_head(watched, seen, drawn)
    plots = Plots(words=words, **_create_learning(), **_create_probe(), **_create_partners())
    with gr.Accordion("Log", open=False, elem_classes="card", elem_id="log"):
        log = gr.Textbox(lines=12, max_lines=24, interactive=False, elem_id="log-text", **_BARE)
    tick = tick._replace(log=log)

    looking = {"fn": handlers.tick, "inputs": [watched, seen], "outputs": [*tick], "queue": False}
    gr.Timer(POLL_SECONDS).tick(**looking, **ONCE)
    watched.change(**looking, **LAST)
    tab.select(handlers.list_runs, [watched], [watched], **LAST)
    drawing = drawn.change(handlers.draw, [watched, plots.layer], [*plots], **LAST)
    drawing.then(handlers.figures_of_two, [watched], [plots.figures], **LAST)
    plots.layer.input(handlers.draw_probe, [watched, plots.layer], [plots.probe_words, plots.probe], **LAST)
    demo.load(handlers.attach, None, [watched], **ONCE).then(**looking, **LAST)

    tick.stop.click(handlers.stop, [watched], [problem], **ONCE).then(**looking, **LAST)
    tick.resume.click(handlers.resume, [watched], [problem], **ONCE).then(**looking, **LAST)
    tick.twin.click(handlers.start_twin, [watched], [problem, watched], **ONCE)
    tick.lesson.click(handlers.start_lesson, [watched], [problem, watched], **ONCE)
    tick.two.click(handlers.start_two, [watched], [problem, watched], **ONCE)
    return tick.explore


def _create_head(watched: gr.Dropdown, seen: gr.State, drawn: gr.Textbox) -> tuple[Tick, gr.HTML, gr.HTML]:
    """The card that ticks (but for the log), words on dead experts, and what is wrong."""
    with gr.Column(elem_classes="card", elem_id="live"):
        with gr.Row(elem_classes="card-head"):
            head = gr.HTML(NOTHING_YET, apply_default_css=False, elem_id="run-head")
            watched.render()
        progress = gr.HTML("", apply_default_css=False, elem_id="progress")
        problem = gr.HTML("", apply_default_css=False)
        with gr.Row(elem_classes="buttons"):
            small = {"min_width": 0, "scale": 0, "interactive": False}
            buttons = {
                "stop": gr.Button("Stop", elem_id="stop", **small),
                "resume": gr.Button("Resume", elem_id="resume", **small),
                "explore": gr.Button("Open in Explore", elem_id="open-in-explore", **small),
                "twin": gr.Button("Train dense baseline", elem_id="twin", **small),
                "lesson": gr.Button("Train it without the balance loss", elem_id="lesson", **small),
                "two": gr.Button("Train it with two experts per token", elem_id="two", **small),
            }
        words = gr.HTML("", apply_default_css=False, elem_id="run-words")
    return Tick(head=head, progress=progress, **buttons, seen=seen, drawn=drawn), words, problem


def _create_learning() -> dict[str, Any]:
    """Curves, what the model writes, and the health of its routing."""
    with gr.Column(elem_classes="card run-plots"):
        gr.HTML(heading("Learning"), apply_default_css=False)
        curves = _plot("curves")
        note = gr.HTML("", apply_default_css=False)
    with gr.Column(elem_classes="card", visible=False, elem_id="written") as written:
        gr.HTML(heading("Sample output"), apply_default_css=False)
        samples = gr.HTML(NONE_YET, apply_default_css=False, elem_id="samples-written")
    with gr.Row(elem_classes="pair run-plots", visible=False) as routing:
        with gr.Column(elem_classes="card", min_width=300) as load_card:
            gr.HTML(heading("Load per expert over time (1 = an even share)"), apply_default_css=False)
            load = _plot("load-over-time")
        with gr.Column(elem_classes="card", min_width=300):
            gr.HTML(heading("Health of the routing"), apply_default_css=False)
            health = _plot("health")
    return {
        "curves": curves,
        "note": note,
        "written": written,
        "samples": samples,
        "routing": routing,
        "load_card": load_card,
        "load": load,
        "health": health,
    }


def _create_probe() -> dict[str, Any]:
    """The text being watched."""
    with gr.Column(elem_classes="card run-plots"):
        with gr.Row(elem_classes="card-head"):
            gr.HTML(heading("Probe text"), apply_default_css=False)
            layer = gr.Dropdown(
                [], label="Layer", filterable=False, visible=False, min_width=140, elem_id="probe-layer", **_BARE
            )
        words = gr.HTML(NO_PROBE, apply_default_css=False)
        return {"layer": layer, "probe_words": words, "probe": _plot("probe-plot")}


def _create_partners() -> dict[str, Any]:
    """The run beside its twins."""
    with gr.Column(elem_classes="card run-plots", visible=False, elem_id="partners") as partners:
        gr.HTML(heading("Its baselines: validation loss against steps, time and tokens"), apply_default_css=False)
        with gr.Row(elem_id="partners-plots"):
            found = {f"by_{over}": _plot(f"partners-by-{over}", min_width=260) for over in ("step", "time", "tokens")}
        found["lesson_words"] = gr.HTML("", apply_default_css=False, elem_id="lesson-words")
        found["figures"] = gr.HTML("", apply_default_css=False, elem_id="lesson-figures")
        with gr.Row(elem_classes="pair", visible=False, elem_id="lesson-loads") as lesson:
            for name in ("without", "with"):
                with gr.Column(min_width=300):
                    found[f"{name}_words"] = gr.HTML("", apply_default_css=False)
                    found[name if name == "without" else "with_it"] = _plot(f"load-{name}")
    return {"partners": partners, "lesson": lesson, **found}


def _plot(name: str, **size: int) -> gr.Plot:
    return gr.Plot(buttons=[], elem_id=name, **_BARE, **size)
