"""Pictures and words of runs: they show what the lines say, and nothing that is missing makes them fail."""

import json
import math

import pytest

from switch_model.grid.palette import expert_colour
from train.arguments.arguments import Arguments
from train.arguments.groups import ModelArguments
from train.runs.run import Run
from ui.server.workspace import Workspace
from ui.training import learning_curves, routing_curves, run_summary
from ui.training.live_run import LiveRun

HOSTILE = "<script>alert(1)</script>"


def routing(*loads: list[float], **more) -> list[dict]:
    common = {"tokens": 900, "balance_loss": 1.0, "z_loss": 2.0, "drop_rate": 0.0, "token_entropy": 0.8} | more
    return [{"layer": f"encoder.{index}", "load": load} | common for index, load in enumerate(loads)]


def train_line(step: int, layers: list[dict], **more) -> dict:
    return {"kind": "train", "step": step, "loss": 2.0 / step, "accuracy": 0.5, "routing": layers} | more


def eval_line(step: int, **more) -> dict:
    return {"kind": "eval", "step": step, "loss": 1.0 / step, "accuracy": 0.75, "routing": []} | more


def probe_line(step: int, experts: list[int], kept: list[bool], label: str = "Business") -> dict:
    layer = {"layer": "encoder.1", "expert": experts, "gate": [0.5] * len(experts), "kept": kept}
    pieces = ["oil", " prices", "<b>rose"][: len(experts)]
    return {"kind": "probe", "step": step, "pieces": pieces, "label": label, "score": 0.83, "layers": [layer]}


EVEN = [0.25] * 4
RUN = [
    train_line(10, routing(EVEN, EVEN), seconds=60, tokens=1000),
    eval_line(10, seconds=70, tokens=1000),
    train_line(20, routing(EVEN, [0.5, 0.5, 0, 0]), seconds=180, tokens=2000),
    eval_line(20, seconds=200, tokens=2000),
    {"kind": "end", "step": 20},
]
DENSE = [train_line(10, []), eval_line(10)]
PARTIAL = [
    {},
    {"kind": "train"},
    {"kind": "train", "step": 5, "loss": math.nan, "routing": [{"layer": "encoder.0"}]},
    {"kind": "train", "step": 6, "routing": [{"layer": "encoder.0", "load": [0.5, None], "drop_rate": math.inf}]},
    {"kind": "eval", "step": 7, "accuracy": None},
    {"kind": "probe", "step": 7, "pieces": ["a"], "layers": [{"layer": "encoder.0", "expert": [1]}]},
    {"kind": "probe", "step": 8, "pieces": []},
]


@pytest.mark.parametrize("records", [[], RUN[:1], RUN, DENSE, PARTIAL, PARTIAL[-2:-1], RUN + PARTIAL])
def test_nothing_fails_on_what_is_missing_and_no_nan_is_drawn(records):
    figures = [
        learning_curves.learning_curves(records),
        routing_curves.load_heat_map(records),
        learning_curves.routing_health(records),
        *learning_curves.twin_curves({"one": records, "two": []}),
        learning_curves.compare_curves({"one": records}, "accuracy", "tokens"),
        routing_curves.probe_plot(records, "encoder.7"),
    ]
    for figure in figures:
        assert figure.layout.height <= 620
        json.loads(figure.to_json(), parse_constant=pytest.fail)
    assert isinstance(run_summary.dead_experts(records), str)
    assert isinstance(run_summary.probe_words(records), str)


def test_learning_curves_hold_both_losses_and_both_accuracies():
    curves = {trace.name: (trace.x, trace.y, trace.yaxis) for trace in learning_curves.learning_curves(RUN).data}
    assert curves == {
        "training loss": ((10, 20), (0.2, 0.1), "y"),
        "validation loss": ((10, 20), (0.1, 0.05), "y"),
        "training accuracy": ((10, 20), (50, 50), "y2"),
        "validation accuracy": ((10, 20), (75, 75), "y2"),
    }


def test_heat_map_is_load_over_an_even_share_with_a_panel_per_layer():
    figure = routing_curves.load_heat_map(RUN)
    assert [title.text for title in figure.layout.annotations] == ["layer 0", "layer 1"]
    assert [list(map(list, panel.z)) for panel in figure.data] == [[[1, 1]] * 4, [[1, 2], [1, 2], [1, 0], [1, 0]]]


def test_a_long_run_of_a_large_model_stays_light_and_low():
    load = [1 / 64] * 64
    records = [train_line(step, routing(*[load] * 12)) for step in range(1, 2001)]
    figure = routing_curves.load_heat_map(records)
    assert figure.layout.height <= routing_curves.MAX_HEIGHT
    assert len(figure.to_json()) < 700_000
    for trace in learning_curves.learning_curves(records).data:
        assert len(trace.x) <= learning_curves.MAX_POINTS


def test_twins_are_drawn_against_steps_minutes_and_tokens_in_one_colour_per_run():
    figures = learning_curves.twin_curves({"toy": RUN, HOSTILE: RUN, "old": DENSE})
    toy = [[trace for trace in figure.data if trace.legendgroup == "toy"] for figure in figures]
    assert [list(validation.x) for _, validation in toy] == [[10, 20], [70 / 60, 200 / 60], [1000, 2000]]
    assert {trace.line.color for panel in toy for trace in panel} == {learning_curves.COLOURS[0]}
    shown = [trace.name for trace in figures[0].data if trace.showlegend]
    assert shown == ["toy", "&lt;script&gt;alert(1)&lt;/script&gt;", "old"]
    assert figures[1].layout.xaxis.title.text == "minutes"


def test_a_watched_text_of_a_dense_model_has_words_and_no_picture(tmp_path):
    run = Run.create(Arguments.resolve({"dataset": "toy", "sparse_step": 0, "output_dir": str(tmp_path / "dense")}))
    for record in (*DENSE, {"kind": "probe", "step": 10, "pieces": ["a"], "layers": [], "label": "b", "score": 0.5}):
        run.append_metrics(record)
    drawn = LiveRun(Workspace(tmp_path)).draw("dense", None)
    assert drawn.probe is None and "A dense model routes nothing. Predicted b (50.0\u00a0%)." in drawn.probe_words


def test_probe_shows_experts_in_their_colours_and_marks_what_was_dropped():
    records = [probe_line(50, [3, 0, 1], [True] * 3), probe_line(100, [3, 2, 1], [True, False, True])]
    (heat,) = routing_curves.probe_plot(records, "encoder.1").data
    assert [list(row) for row in heat.text] == [["3", "0", "1"], ["3", "2×", "1"]]
    # The scale runs from -0.5 to 3.5: a quarter per expert, each of one colour.
    assert heat.colorscale[6:] == ((0.75, expert_colour(3)), (1.0, expert_colour(3)))
    assert "&lt;b&gt;rose" in heat.customdata[0][2]


def test_probe_words_say_how_many_tokens_changed_and_when_they_settled():
    kept = [True] * 3
    records = [
        probe_line(50, [3, 0, 1], kept, "Sports"),
        probe_line(100, [3, 2, 0], kept),
        probe_line(150, [3, 2, 0], kept),
    ]
    assert run_summary.probe_words(records[:2]) == (
        "From step 50 to 100, 2 of 3 tokens changed their expert in layer 1. "
        "Predicted Business (83.0\u00a0%), after Sports (83.0\u00a0%)."
    )
    assert run_summary.probe_words(records) == (
        "No token has changed its expert in layer 1 since step 100. Predicted Business (83.0\u00a0%)."
    )


def test_beside_a_decoder_the_encoder_is_named():
    both = [*routing(EVEN, [0.97, 0.01, 0.01, 0.01])]
    both[0]["layer"] = "decoder.1"
    lines = [train_line(5, both)]
    titles = ["decoder layer 1", "encoder layer 1"]
    assert [title.text for title in routing_curves.load_heat_map(lines).layout.annotations] == titles
    assert {line.name for line in learning_curves.routing_health(lines).data if line.name} == set(titles)
    assert run_summary.dead_experts(lines).startswith("Encoder layer 1: expert 0 takes")


def test_the_balance_of_a_text_is_drawn_beside_the_batchs():
    lines = [train_line(step, routing(EVEN, balance_loss=1.1, sequence_balance_loss=2.5)) for step in (5, 10)]
    drawn = {(line.name, line.xaxis): line.y for line in learning_curves.routing_health(lines).data}
    assert drawn["layer 0", "x"] == (1.1, 1.1) and drawn["layer 0, of a text", "x"] == (2.5, 2.5)


def test_the_drop_rate_is_drawn_only_where_an_expert_can_be_full():
    titles = [
        {title.text for title in learning_curves.routing_health(RUN, may_drop).layout.annotations}
        for may_drop in (True, False)
    ]
    assert titles[0] - titles[1] == {"dropped tokens"} and len(titles[1]) == 3
    assert not ModelArguments(capacity_factor=math.inf).drops_in_training
    assert ModelArguments(capacity_factor=math.inf, expert_capacity=4).drops_in_training


def test_dead_experts_are_called_out_by_layer_and_number():
    assert run_summary.dead_experts(RUN[:2]) == "All experts are in use."
    starved = [0.4, 0.3, 0.2999, 0.0001]
    words = run_summary.dead_experts([train_line(5, routing(EVEN, starved, balance_loss=3.1))])
    assert words == (
        "Layer 1: expert 3 receives next to nothing (under 1 % of an even share). "
        "The balance loss is 3.1 (1 = even): raise “Balance loss weight”, or lower “Learning rate”."
    )
    collapsed = run_summary.dead_experts([train_line(5, routing([0.93, 0.07, 0, 0], drop_rate=0.5))])
    assert "Layer 0: expert 0 takes 93.0\u00a0% of all tokens; experts 2 and 3 receive next to nothing" in collapsed
    assert "50.0\u00a0% of the tokens are dropped" in collapsed and "raise “Capacity factor in training”." in collapsed
    # A line of long ago says nothing about now, and of two experts one may well take 60 %.
    recovered = [train_line(5, routing(starved)), *(train_line(step, routing([0.61, 0.39])) for step in (10, 15, 20))]
    assert run_summary.dead_experts(recovered) == "All experts are in use."
    assert "no experts" in run_summary.dead_experts(DENSE)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (45, "45 s"),
        (59.7, "1 min 00 s"),
        (130, "2 min 10 s"),
        (3599.8, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (None, "–"),
    ],
)
def test_duration(seconds, words):
    assert run_summary.duration(seconds) == words


def test_progress_says_what_is_left_only_of_a_run_at_work():
    progress = {"step": 1200, "max_steps": 3000, "seconds": 130, "steps_per_second": 99, "phase": "evaluating"}
    # Evaluations count: the whole run made 1,200 steps in 130 seconds.
    words = "step 1,200 of 3,000 · 2 min 10 s · about 3 min 15 s left · evaluating"
    assert words in run_summary.progress_html(progress, "running")
    assert "left" not in run_summary.progress_html(progress, "failed")
    assert "about 30 s left" in run_summary.progress_html(progress | {"step": 30}, "running")
    for state in run_summary.STATES:
        assert 'aria-valuenow="0"' in run_summary.progress_html({}, state)


def test_arguments_diff_shows_only_differences_and_escapes_names_and_values():
    runs = {
        HOSTILE: {"lr": None, "epochs": 3, "probe": HOSTILE, "output_dir": "a"},
        "b": {"lr": 1e-3, "epochs": 3.0, "probe": "x", "output_dir": "b"},
    }
    html = run_summary.arguments_diff_html(runs)
    assert "0.001" in html and "none" in html
    assert "epochs" not in html and "output_dir" not in html
    assert "<script" not in html + run_summary.state_badge(HOSTILE)
    assert "same arguments" in run_summary.arguments_diff_html({"a": runs["b"], "b": runs["b"]})
