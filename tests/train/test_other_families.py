"""The commands on mixture-of-experts models of transformers."""

import json

import pytest

from switch_model.adapters.families import too_old
from switch_model.topk_routing import record_of_dict
from tests.support.moe_models import CHOICES, save_tiny, tiny, tiny_filter, tiny_nllb
from train.cli.main import main

pytestmark = pytest.mark.skipif(bool(too_old()), reason="The routers of older versions return other things.")


@pytest.fixture
def data(tmp_path):
    rows = [f"the team won {'rain' if row % 2 else 'oil'} fell,{'yes' if row % 2 else 'no'}" for row in range(12)]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return str(path)


def save_classifier(folder):
    names = {0: "no", 1: "yes"}
    return save_tiny(folder, tiny("mixtral", "ForSequenceClassification", id2label=names, label2id={"no": 0, "yes": 1}))


def test_predict_shows_the_experts_of_every_token(tmp_path, capsys):
    for name, folder, traces in (
        ("text", save_tiny(tmp_path / "text", tiny("olmoe")), lambda one: one["traces"]),
        ("class", save_classifier(tmp_path / "class"), lambda one: [one]),
        ("tokens", save_tiny(tmp_path / "tokens", tiny_filter()), lambda one: [one]),
        ("both", save_tiny(tmp_path / "both", tiny_nllb()), lambda one: one["traces"]),
    ):
        path = tmp_path / f"{name}.json"
        length = [] if name in ("class", "tokens") else ["--max_new_tokens", "3"]
        asked = ["--checkpoint", str(folder), "the team won", "--trace", "--trace_file", str(path), *length]
        assert main(["predict", *asked]) == 0
        printed = capsys.readouterr().out
        assert "largest weight comes first" in printed and "coder.1" in printed
        written = json.loads(path.read_text())[0].get("attribution", [])
        assert ("experts: what they add to the logit" in printed) == bool(written) == (name != "both")
        for trace in traces(json.loads(path.read_text())[0]):
            records = [record_of_dict(values) for values in trace["routing"]]
            assert records and all(record.experts.shape == (1, len(trace["tokens"]), CHOICES) for record in records)


def test_evaluate_and_analyze_measure_them(tmp_path, data, capsys):
    classifier = str(save_classifier(tmp_path / "class"))
    assert main(["evaluate", "--checkpoint", classifier, "--dataset", data, "--reliance", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 12 and found["routing"][0]["choices"] == CHOICES and found["reliance"]["rows"] == 4
    report = tmp_path / "report"
    asked = ["--dataset", data, "--importance", "2", "--reliance", "4", "--output", str(report), "--dtype", "float32"]
    assert main(["analyze", "--checkpoint", classifier, *asked]) == 0
    layer = json.loads((report / "measures.json").read_text())["layers"][0]
    assert sum(layer["load"]) == pytest.approx(1, abs=1e-4) and layer["coactivation"]
    capsys.readouterr()
    writer = str(save_tiny(tmp_path / "text", tiny("olmoe")))
    asked = ["--dataset", data, "--reliance", "4", "--compare_with", writer, "--output", str(report)]
    assert main(["analyze", "--checkpoint", writer, *asked]) == 0
    assert "12 texts, 60 tokens, 3 layers of 8 experts, 2 for each token" in capsys.readouterr().out
    assert len(json.loads((report / "measures.json").read_text())["layers"][0]["load"]) == 8
    agreed = json.loads((report / "measures.json").read_text())["agreement"]
    assert [one["rank"] for one in agreed] == [1] * 3 and agreed[0]["rank_chance"] < 1 == agreed[0]["by_position"][0]
    entries = json.loads((report / "atlas.json").read_text())["experts"]
    # Two choices for each token, two sources of the texts, and what the text is worth without each expert.
    assert len(entries) == 24 and sum(one["tokens"] for one in entries[:8]) == CHOICES * 60
    assert {one["name"] for one in entries[0]["classes"]} == {"no", "yes"} and entries[0]["effect"]["texts"] == 12
    assert main(["evaluate", "--checkpoint", writer, "--dataset", data, "--reliance", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["perplexity"] > 1
