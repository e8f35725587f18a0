"""Models of transformers opened: heads, encoder-decoders, what is refused and why."""

import json

import pytest
import torch
import transformers

from switch_model import CheckpointError, Interventions, Predictor, TextGenerator, TokenClassifier, load_checkpoint
from switch_model.adapters import families
from switch_model.adapters.loading import load_any
from switch_model.analysis.corpus import route_corpus
from switch_model.analysis.reliance import reliance
from switch_model.counterfactuals import importance, leave_one_out, what_if
from tests.support import moe_models
from tests.support.moe_models import CHOICES, EXPERTS, filled, save_tiny, tiny, tiny_filter, tiny_tokenizer
from tests.support.their_models import make_theirs

TEXT = "the team won oil prices rose"
pytestmark = pytest.mark.skipif(bool(families.too_old()), reason="The routers of older versions return other things.")


def test_classifiers_and_their_analyses(tmp_path):
    model = tiny("mixtral", "ForSequenceClassification", num_labels=3)
    predictor = Predictor.from_checkpoint(save_tiny(tmp_path, model), "cpu")
    texts = [TEXT, "rain fell", "oil prices fell the rain rose"]
    found = predictor.batch(texts)
    with torch.inference_mode():
        theirs = model(torch.tensor([tiny_tokenizer()(texts[1])["input_ids"]])).logits.softmax(-1)[0]
    assert list(found[1].scores.values()) == pytest.approx(theirs.tolist(), abs=1e-5)
    assert found[1].tokens == ["rain", "fell"] and found[1].routing[0].experts.shape == (1, 2, CHOICES)

    layer = predictor.model.config.sparse_layers[0]
    answer = what_if(predictor, TEXT, 0, layer)
    forced = predictor(TEXT, Interventions(force={(layer, 0): answer.best})).scores[answer.label]
    assert forced == pytest.approx(answer.probability[answer.best], abs=1e-5)
    assert importance(predictor, TEXT)[2].shape == (3, EXPERTS) and leave_one_out(predictor, TEXT)[1].shape == (6,)
    corpus = route_corpus(predictor, texts)
    assert corpus.measures[0]["choices"] == CHOICES and corpus.expert.shape == (3, 14)
    rows = [{"input_ids": predictor.token_ids(text), "labels": 0} for text in texts]
    measured = reliance(predictor.model, rows)
    assert measured.all_off["class_changes"].value >= 0 and len(measured.layers[0].experts_off) == EXPERTS


def test_a_model_of_one_number_is_no_classifier(tmp_path):
    with pytest.raises(CheckpointError, match="a number"):
        Predictor.from_checkpoint(save_tiny(tmp_path, tiny("mixtral", "ForSequenceClassification", num_labels=1)))


def test_without_a_padding_token_each_text_is_read_alone(tmp_path):
    model = tiny("mixtral", "ForSequenceClassification", num_labels=3, pad_token_id=None)
    predictor = Predictor.from_checkpoint(save_tiny(tmp_path, model), "cpu")
    together, alone = predictor.batch([TEXT, "rain fell"]), predictor("rain fell")
    assert together[1].scores == pytest.approx(alone.scores, abs=1e-5) and len(together[1].tokens) == 2


def test_classes_of_tokens(tmp_path):
    model = tiny_filter()
    classifier = TokenClassifier.from_checkpoint(save_tiny(tmp_path, model), "cpu")
    long, short = classifier.batch([TEXT, "rain fell"])
    with torch.inference_mode():
        theirs = model(torch.tensor([tiny_tokenizer()("rain fell")["input_ids"]])).logits[0].softmax(-1)
    torch.testing.assert_close(short.scores, theirs, rtol=1e-3, atol=1e-4)
    assert short.labels == [model.config.id2label[index] for index in theirs.argmax(-1).tolist()]
    assert short.tokens == ["rain", "fell"] and long.routing[0].name == "encoder.0" and len(long.labels) == 6
    with pytest.raises(CheckpointError, match="is a MixtralForCausalLM: it does not classify tokens"):
        TokenClassifier.from_checkpoint(save_tiny(tmp_path / "other", tiny("mixtral")))
    with pytest.raises(CheckpointError, match="not classes"):
        Predictor.from_checkpoint(tmp_path / "other")


@pytest.mark.parametrize("make", [moe_models.tiny_nllb, lambda: make_theirs(expert_capacity=64)])
def test_encoder_decoders_with_routers_of_their_own(make, tmp_path):
    model = make()
    generator = TextGenerator.from_checkpoint(save_tiny(tmp_path, model), "cpu")
    found = generator(TEXT, max_new_tokens=5)
    ids = torch.tensor([tiny_tokenizer()(TEXT)["input_ids"]])
    with torch.inference_mode():
        written = model.generate(ids, max_new_tokens=5, do_sample=False)[0, 1:]
    assert found.text.split() == tiny_tokenizer().decode(written, skip_special_tokens=True).split()
    names = [record.name for record in found.routing]
    assert names == list(generator.model.config.sparse_layers) and {name[:7] for name in names} == {
        "encoder",
        "decoder",
    }
    for layer, token in ((names[0], 3), (names[-1], 0)):
        changes = Interventions(ablate={(layer, 1)}, force={(layer, token): 2})
        changed = generator(TEXT, max_new_tokens=5, interventions=changes).routing[names.index(layer)]
        assert changed.choices[1] == 0 and changed.expert[0, token] == 2
    with pytest.raises(ValueError, match="always chooses"):
        generator(TEXT, interventions=Interventions(top_k=3))


def test_what_is_refused_and_why(tmp_path, monkeypatch):
    def config(**values):
        (tmp_path / "config.json").write_text(json.dumps(values))
        return tmp_path

    for family in families.REFUSED:
        with pytest.raises(CheckpointError, match=f"The family {family} can't be opened: .* mixtral"):
            load_any(config(model_type=family))
    with pytest.raises(CheckpointError, match="code of its own, which is never run"):
        load_any(config(model_type="mine", architectures=["MyForCausalLM"], auto_map={"AutoModel": "x.Y"}))
    # Code beside a known family's weights is not run either.
    folder = save_tiny(tmp_path / "code", tiny("mixtral"))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nclass Mine: pass\n")
    values = json.loads((folder / "config.json").read_text())
    named = {"AutoModelForCausalLM": "mine.Mine", "AutoConfig": "mine.Mine", "AutoTokenizer": ["mine.Mine", None]}
    (folder / "config.json").write_text(json.dumps(values | {"auto_map": named}))
    assert type(load_any(folder, "cpu")[0].library).__name__ == "MixtralForCausalLM"
    assert not (tmp_path / "run").exists()
    (folder / "config.json").write_text(json.dumps(values | {"vocab_size": 30}))
    with pytest.raises(CheckpointError, match=r"has the shape \(24, 32\) in the weights, but \(30, 32\) by config"):
        load_any(folder)
    folder = config(model_type="mixtral", architectures=["MixtralForCausalLM"])
    with pytest.raises(CheckpointError, match=r"no \.safetensors.*pickle|Pickled"):
        load_any(folder)
    dense = transformers.LlamaForCausalLM(transformers.LlamaConfig(**moe_models.SIZES))
    with pytest.raises(CheckpointError, match="The family llama has no router"):
        load_any(save_tiny(tmp_path / "dense", filled(dense)))
    # What a visitor sends is never opened by transformers.
    with pytest.raises(CheckpointError, match="model_type='llama'"):
        load_checkpoint(tmp_path / "dense")
    with pytest.raises(CheckpointError, match="dtype='int8'"):
        load_any(tmp_path / "dense", dtype="int8")
    monkeypatch.setattr(families.transformers, "__version__", "5.23.1")
    with pytest.raises(CheckpointError, match=r"5\.24 or newer"):
        load_any(tmp_path / "dense")
