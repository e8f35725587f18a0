"""Routing recorded elsewhere: each format read exactly, broken captures refused, agreement beside chance."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest

from switch_model.traces.agreement import agreement
from switch_model.traces.measures import layer_measures
from switch_model.traces.opening import open_trace
from switch_model.traces.tables import to_json_lines
from switch_model.traces.trace import TraceError, one_text
from train.cli.main import main

T, L, K, E = 7, 3, 2, 16


@pytest.fixture
def experts() -> np.ndarray:
    """(T, L, K), no expert twice for one token."""
    random = np.random.default_rng(0)
    return np.array([[random.permutation(E)[:K] for _ in range(L)] for _ in range(T)])


def npy(array: np.ndarray) -> str:
    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


def in_order(experts: np.ndarray) -> str:
    """llama.cpp's table of a prompt of 4 tokens and 3 more one by one."""
    batches = [experts[:4], *(experts[i : i + 1] for i in range(4, T))]
    rows = [f"{layer},{e}" for batch in batches for layer in range(L) for e in batch[:, layer].ravel()]
    return "\n".join(["layer,expert", *rows])


def placed(experts: np.ndarray) -> str:
    """A table with positions, its rows in any order."""
    rows = [
        f"decode,{t},{layer},{k},{experts[t, layer, k]},0.5" for t in range(T) for layer in range(L) for k in range(K)
    ]
    return "\n".join(["# n_layer=3 n_expert=16", "phase,step,layer,slot,expert,weight", *reversed(rows)])


FORMATS = {
    "vllm.json": lambda e: json.dumps(
        {"choices": [{"token_ids": list(range(T - 4)), "routed_experts": npy(e.astype(np.uint8))}]}
        | {"prompt_token_ids": [5] * 5}
    ),
    "sglang.json": lambda e: json.dumps(
        {"text": "…", "meta_info": {"routed_experts": base64.b64encode(e.astype("<i4").tobytes()).decode()}}
    ),
    "answers.jsonl": lambda e: json.dumps({"routed_experts": e.tolist()}) + "\n",
    "llama.csv": in_order,
    "steps.csv": placed,
    "own.jsonl": lambda e: "\n".join(to_json_lines(one_text(e, tokens=list("abcdefg")))),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_every_choice(name, experts, tmp_path):
    (tmp_path / name).write_text(FORMATS[name](experts))
    shape = {"num_layers": L, "top_k": K} if name == "sglang.json" else {}
    trace = open_trace(tmp_path / name, **shape)
    assert (trace.experts == experts.swapaxes(0, 1)).all() and trace.position.tolist() == list(range(T))
    if name == "vllm.json":  # The last token written was never read: one id more than rows.
        assert trace.tokens == ["#5"] * 5 + ["#0", "#1"]
    if name == "own.jsonl":
        assert trace.tokens == list("abcdefg")
    if name == "steps.csv":
        assert trace.num_experts == E and (trace.weights == 0.5).all()


def test_a_record_of_the_page_is_a_trace_of_one_choice():
    file = Path(__file__).parents[1] / "ui" / "records" / "prediction.json"
    trace, record = open_trace(file), json.loads(file.read_text())["prediction"]
    assert trace.top_k == 1 and list(trace.layers) == [one["name"] for one in record["routing"]]
    assert trace.experts[:, :, 0].tolist() == [one["expert"][0] for one in record["routing"]]
    assert trace.tokens == record["tokens"] and ((trace.weights > 0) & (trace.weights <= 1)).all()


def test_places_and_layers_that_were_never_captured_are_left_out_and_said(experts, tmp_path):
    padded = np.concatenate([experts, np.full((T, L, 1), 255)], axis=-1)  # A shared expert fused with the others.
    padded = np.concatenate([np.zeros((T, 1, K + 1), dtype=int), padded], axis=1)  # A dense first layer.
    padded[:, 0, -1] = 255
    file = tmp_path / "fused.npy"
    np.save(file, padded)
    trace = open_trace(file)
    assert trace.layers == ("layer 1", "layer 2", "layer 3") and (trace.experts == experts.swapaxes(0, 1)).all()
    assert "1 of 3 places" in trace.notes[0] and "layer 0" in trace.notes[1]


WRONG = {
    "zeros.npy": (np.zeros((T, L, K), dtype=np.int32), "every expert index is 0"),
    "filled.npy": (np.full((T, L, K), 255, dtype=np.uint8), "every expert index is 255"),
    "twice.npy": (np.ones((T, L, K), dtype=np.int64) * np.arange(1, T + 1)[:, None, None], "one expert twice"),
    "flat.npy": (np.arange(12), "three axes"),
    "fractions.npy": (np.ones((T, L, K)) / 2, "whole numbers"),
    "empty.npy": (np.zeros((0, L, K), dtype=np.int32), "no token"),
    "nothing.json": ({"choices": [{"text": "x"}]}, "no routed experts"),
    "cut.json": ({"routed_experts": "AAA"}, "not valid base64"),
    "shapeless.json": ({"routed_experts": base64.b64encode(bytes(range(48))).decode()}, "without a shape"),
    "unwritten.json": ({"routed_experts": base64.b64encode(bytes(48)).decode()}, "every expert index is 0"),
    "unwritten.csv": ("layer,expert" + "\n0,255" * 4, "every expert index is 255"),
    "header.csv": ("a,b\n1,2", "columns layer and expert"),
    "words.csv": ("layer,expert\n0,many", "Row 2"),
    "one.csv": ("layer,expert\n0,1\n0,2\n0,3", "which rows are one token's"),
    "cut.csv": ("layer,expert,position\n0,1,0\n1,2,0\n0,3,1", "cut off"),
    "line.jsonl": ('{"layer": 0, "experts": "many"}', "Line 1"),
    "later.jsonl": ('{"format": "routing-trace", "version": 2}', "version 2"),
    "other.jsonl": ('{"format": "routing-log"}', "'routing-log'"),
    "fewer.jsonl": ('{"layer": 0, "experts": [1, 2], "weights": [0.5]}', "2 experts and 1 weights"),
    "nan.jsonl": ('{"layer": 0, "experts": [1, 2], "weights": [0.5, NaN]}', "no finite number"),
    "some.jsonl": ('{"layer": 0, "experts": [1], "weights": [1]}\n{"layer": 0, "experts": [2]}', "and others none"),
    "again.jsonl": ('{"layer": 0, "experts": [1], "position": 3}\n' * 2, "Line 2 tells of position 3"),
    "before.jsonl": ('{"layer": 0, "experts": [1], "position": -1}', "-1 is no position"),
    "negative.jsonl": ('{"layer": 0, "experts": [1, 2]}\n{"layer": 0, "experts": [1, -1]}', "negative expert"),
    "weighs.csv": ("layer,expert,position,weight\n0,1,0,much", "'much' is no weight"),
    "again.csv": ("layer,expert,position,choice\n0,1,0,0\n0,2,0,0", "one choice twice"),
}


def test_a_gap_in_a_text_is_said_and_makes_no_neighbours(tmp_path):
    lines = [{"layer": 0, "experts": [5 + (place > 1), 1], "position": place} for place in (0, 1, 3, 4)]
    (tmp_path / "gap.jsonl").write_text("\n".join(map(json.dumps, lines)))
    trace = open_trace(tmp_path / "gap.jsonl")
    assert trace.position.tolist() == [0, 1, 3, 4] and "lacks 1 of the positions up to 4, 2 the first" in trace.notes[0]
    # Between 1 and 3 one of the two experts differs.
    assert layer_measures(trace)[0]["repeated"] == 1


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_whole_trace_is_refused_in_words(name, tmp_path):
    content, said = WRONG[name]
    file = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(file, content)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(TraceError, match=said):
        open_trace(file)


def test_a_header_that_claims_more_than_there_is_takes_no_memory(tmp_path):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": (10**6, 10**4, 8), "fortran_order": False, "descr": "<i8"})
    (tmp_path / "huge.npy").write_bytes(file.getvalue())
    with pytest.raises(TraceError, match="cut off"):
        open_trace(tmp_path / "huge.npy")


def test_agreement_stands_beside_chance(experts):
    random = np.random.default_rng(1)
    many = np.array([[random.permutation(E)[:K] for _ in range(L)] for _ in range(400)])
    one, swapped = one_text(many), one_text(many[..., ::-1])
    for layer in agreement(one, one):
        assert layer.same_first == layer.overlap == layer.rank == 1 and layer.overlap_chance == pytest.approx(
            K / E, abs=0.02
        )
    for layer in agreement(one, swapped):  # The same experts in the other order.
        assert layer.overlap == 1 and layer.same_first == 0 and layer.rank == pytest.approx(0.5)
        assert layer.by_position == pytest.approx(np.ones(10))
    with pytest.raises(TraceError, match="not of the same tokens"):
        agreement(one, one_text(experts))


def test_measures_stand_beside_chance():
    random = np.random.default_rng(1)
    chosen = np.array([[random.permutation(E)[:K] for _ in range(L)] for _ in range(2000)])
    chosen[1::2, 0] = chosen[::2, 0]  # In the first layer every second token goes where the one before it went.
    first, second, _ = layer_measures(one_text(chosen))
    assert first["repeated"] == pytest.approx(0.5 + 0.5 * K / E, abs=0.03)
    assert second["repeated"] == pytest.approx(second["repeated_chance"], abs=0.02) and second["idle"] == 0
    assert second["load_cv"] == pytest.approx(second["load_cv_chance"], rel=0.6) and "weight_mass" not in second


def test_the_command_writes_a_report_and_says_what_it_left_out(experts, tmp_path, capsys):
    np.save(tmp_path / "one.npy", np.concatenate([np.zeros((T, 1, K), dtype=int), experts], axis=1))
    np.save(tmp_path / "two.npy", experts[..., ::-1])
    command = ["analyze", "--from_trace", str(tmp_path / "one.npy"), "--output", str(tmp_path / "report")]
    assert main([*command, "--compare_with", str(tmp_path / "two.npy")]) == 0
    assert "left out: layer 0" in capsys.readouterr().out
    measures = json.loads((tmp_path / "report" / "measures.json").read_text())
    assert [one["layer"] for one in measures["layers"]] == ["layer 1", "layer 2", "layer 3"]
    assert [one["overlap"] for one in measures["agreement"]] == [1.0] * 3
    assert "<script>" in (tmp_path / "report" / "report.html").read_text()
