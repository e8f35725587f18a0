"""The recorded training that "How it works" plays: of the promised shape, small, and one track collapses."""

import json

import pytest

from benchmarks.record_training import CHECKPOINTS, OUTPUT, checkpoints


def test_checkpoints_lie_dense_at_the_beginning():
    steps = checkpoints(300)
    assert len(steps) == CHECKPOINTS and steps[:4] == [0, 1, 2, 3] and steps[-1] == 300
    with pytest.raises(ValueError, match="too few"):
        checkpoints(20)


def test_the_recorded_training_has_the_promised_shape():
    recorded = json.loads(OUTPUT.read_text(encoding="utf-8"))
    assert OUTPUT.stat().st_size < 1_000_000
    model, sentences, steps = recorded["model"], recorded["sentences"], recorded["steps"]
    layers, experts = len(model["layers"]), model["experts"]
    assert recorded["version"] == 1 and len(sentences) == 10 and len(steps) == CHECKPOINTS
    assert all(sentence["class"] in model["classes"] for sentence in sentences)
    lengths = [len(sentence["tokens"]) for sentence in sentences]
    assert [track["name"] for track in recorded["tracks"]] == ["balanced", "unbalanced"]
    for track in recorded["tracks"]:
        assert len(track["loss"]) == len(track["accuracy"]) == len(track["told"]) == CHECKPOINTS
        assert [[len(load) for load in at] for at in track["load"]] == [[experts] * layers] * CHECKPOINTS
        for chosen, gates in zip(track["experts"], track["gates"], strict=True):
            assert len(chosen) == len(gates) == layers
            for digits, hundredths in zip(chosen, gates, strict=True):
                assert list(map(len, digits)) == list(map(len, hundredths)) == lengths
                assert set("".join(digits)) <= set("0123456789"[:experts])
                assert all(0 <= gate <= 100 for row in hundredths for gate in row)


def test_one_track_specialises_and_the_other_collapses():
    balanced, unbalanced = json.loads(OUTPUT.read_text(encoding="utf-8"))["tracks"]
    # Two of eight experts have nearly all tokens of both layers by step 22; later some come back.
    collapsed = [[sum(sorted(load)[-2:]) for load in at] for at in unbalanced["load"]]
    assert any(min(shares) > 0.9 for shares in collapsed)
    for layer in (0, 1):
        # What a token's expert tells of its text's class: at the random start next to nothing.
        assert balanced["told"][-1][layer] > 5 * balanced["told"][0][layer]
        assert max(balanced["load"][-1][layer]) < 0.2 < 0.3 < max(unbalanced["load"][-1][layer])
    # What the page says of the end.
    assert balanced["loss"][-1] + 0.1 < unbalanced["loss"][-1] and balanced["told"][-1][1] < unbalanced["told"][-1][1]
