"""What the model would have said: batched answers equal one question at a time."""

import pytest
import torch

from switch_model import Interventions, Predictor, load_checkpoint
from switch_model.analysis.corpus import route_corpus
from switch_model.counterfactuals import importance, leave_one_out, what_if
from switch_model.grid.layer_names import layer_title
from tests.support.pages import save_tiny_checkpoint

TEXT = "oil prices rose as traders worried about winter"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    model, tokenizer = load_checkpoint(save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"), "cpu")
    # Weights large enough for experts to matter.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "experts" in name or "router" in name or "classifier" in name:
                weight.mul_(8)
    return Predictor(model, tokenizer)


def test_what_if_is_each_forced_choice_and_regret_is_what_the_best_would_add(predictor):
    base = Interventions(ablate={("encoder.3", 2)}, capacity_factor=2.0)
    found = what_if(predictor, TEXT, token=3, layer="encoder.3", base=base)
    actual = predictor(TEXT, interventions=base)
    assert found.label == actual.label and found.expert == int(actual.routing[1].expert[0, 3])
    assert found.probability[2] is None and found.labels[2] is None
    for expert in (0, 1, 3):
        forced = Interventions(base.ablate, {("encoder.3", 3): expert}, 2.0)
        alone = predictor(TEXT, interventions=forced)
        assert found.probability[expert] == pytest.approx(alone.scores[actual.label], abs=1e-6)
        assert found.labels[expert] == alone.label
    assert found.probability[found.expert] == pytest.approx(actual.scores[actual.label], abs=1e-6)
    known = [probability for probability in found.probability if probability is not None]
    assert found.regret == pytest.approx(max(known) - actual.scores[actual.label], abs=1e-6) and found.regret >= 0
    with pytest.raises(ValueError, match="no sparse layer"):
        what_if(predictor, TEXT, token=0, layer="encoder.0")
    with pytest.raises(ValueError, match="8 tokens"):
        what_if(predictor, TEXT, token=8, layer="encoder.1")


def test_importance_is_each_ablation_by_itself(predictor):
    label, layers, change_LE = importance(predictor, TEXT)
    actual = predictor(TEXT)
    assert label == actual.label and layers == ("encoder.1", "encoder.3") and change_LE.shape == (2, 4)
    for row, layer in enumerate(layers):
        for expert in range(4):
            alone = predictor(TEXT, interventions=Interventions(ablate={(layer, expert)}))
            assert change_LE[row, expert] == pytest.approx(alone.scores[label] - actual.scores[label], abs=1e-6)
    assert change_LE.abs().max() > 1e-3
    # What is off already can't be missed again.
    assert importance(predictor, TEXT, Interventions(ablate={("encoder.1", 1)}))[2][0, 1] == pytest.approx(0, abs=1e-6)


def test_leaving_a_token_out_is_hiding_it_from_the_model(predictor):
    label, change_T = leave_one_out(predictor, TEXT)
    ids = torch.tensor([predictor.token_ids(TEXT)])
    assert change_T.shape == (8,) and label == predictor(TEXT).label
    mask = torch.ones_like(ids)
    mask[0, 5] = 0
    with torch.no_grad():
        without = predictor.model(ids, mask).logits.softmax(-1)[0, predictor.model.config.labels.index(label)]
    assert change_T[5] == pytest.approx(float(without) - predictor(TEXT).scores[label], abs=1e-6)


def test_a_models_own_cls_token_is_the_first_token(tmp_path):
    predictor = Predictor.from_checkpoint(save_tiny_checkpoint(tmp_path, cls_token=True, pooling="first"), "cpu")
    prediction = predictor(TEXT)
    assert prediction.tokens[0] == "[CLS]" and prediction.offsets[0] == (0, 0) and not prediction.unknown[0]
    for record in prediction.routing:
        assert record.expert.shape == (1, len(prediction.tokens)) == (1, len(prediction.offsets))
    label, change_T = leave_one_out(predictor, TEXT, Interventions(force={("encoder.1", 0): 2}))
    assert change_T.shape == (len(prediction.tokens),) and change_T[0] == 0 and change_T[1:].abs().max() > 0
    ids, mask = torch.tensor([predictor.token_ids(TEXT)]), torch.ones(1, len(prediction.tokens) - 1)
    mask[0, 3] = 0  # The fourth of the text is the fifth of the record.
    forced = Interventions(force={("encoder.1", 0): 2})
    with torch.no_grad():
        without = predictor.model(ids, mask, interventions=forced).logits.softmax(-1)
    before = predictor(TEXT, interventions=forced).scores[label]
    index = predictor.model.config.labels.index(label)
    assert change_T[4] == pytest.approx(float(without[0, index]) - before, abs=1e-6)

    corpus = route_corpus(predictor, [TEXT, "oil won"])
    mine = corpus.text == 0
    assert corpus.names[int(corpus.token[mine][0])] == "[CLS]"
    for layer, record in enumerate(prediction.routing):
        assert corpus.expert[layer, mine].tolist() == record.expert[0].tolist()
    assert corpus.measures[0]["tokens"] == len(corpus.token)
    assert list(zip(corpus.start[mine].tolist(), corpus.end[mine].tolist(), strict=True)) == prediction.offsets


def test_a_text_is_cut_to_the_positions_that_a_model_has_learned(tmp_path):
    folder = save_tiny_checkpoint(tmp_path, position="learned", max_positions=6, cls_token=True)
    prediction = Predictor.from_checkpoint(folder, "cpu")("oil " * 9)
    assert prediction.truncated and len(prediction.tokens) == 6


def test_layers_have_names_for_people():
    names = ["encoder.1", "encoder.1.attention", "decoder.0", "decoder.2.attention"]
    titles = ["layer 1", "layer 1 attention", "decoder layer 0", "decoder layer 2 attention"]
    assert [layer_title(name) for name in names] == titles
