"""Each head on the same weights as transformers' own model; experts in attention against loops in float64.

What the library has no head for is its stack and the head's few lines.
"""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, SwitchTransformersEncoderModel, SwitchTransformersModel
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersStack

from switch_model import (
    Interventions,
    SwitchConfig,
    SwitchEncoderModel,
    SwitchForCausalLM,
    SwitchForMaskedLM,
    SwitchForSequenceClassification,
    SwitchModel,
)
from switch_model.layers.sparse_attention import AttentionModules, ProjectionExperts
from switch_model.storage.switch_transformers import their_names
from tests.support.heads import make, padded, tokens
from tests.support.their_models import SHAPE, VOCABULARY, make_theirs, save_theirs, texts


@pytest.mark.parametrize("capacity", [64, 2], ids=["ample", "binding"])
def test_both_stacks_without_a_head(capacity, tmp_path):
    theirs = make_theirs(SwitchTransformersModel, expert_capacity=capacity)
    theirs.save_pretrained(tmp_path)
    ours = SwitchModel.from_switch_transformers(tmp_path)
    inputs = texts()
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected, output = theirs(**inputs), ours(**inputs)
    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        output.encoder_last_hidden_state[real], expected.encoder_last_hidden_state[real], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_an_encoder_and_the_heads_over_it(pooling, tmp_path):
    theirs = make_theirs(SwitchTransformersEncoderModel, expert_capacity=2)
    theirs.save_pretrained(tmp_path)
    inputs = texts()
    inputs.pop("decoder_input_ids")
    mask = inputs["attention_mask"].bool()
    with torch.no_grad():
        hidden = theirs(**inputs).last_hidden_state
        ours = SwitchEncoderModel.from_switch_transformers(tmp_path)(**inputs).last_hidden_state
        torch.testing.assert_close(ours[mask], hidden[mask], atol=1e-4, rtol=1e-4)

        classifier = SwitchForSequenceClassification.from_switch_transformers(tmp_path)
        classifier.config.pooling = pooling
        rows = [state[real] for state, real in zip(hidden, mask, strict=True)]
        rows = [row.mean(0) if pooling == "mean" else row.amax(0) for row in rows]
        expected = classifier.classifier(torch.stack(rows))
        torch.testing.assert_close(classifier(**inputs).logits, expected, atol=1e-4, rtol=1e-4)

        masked = SwitchForMaskedLM.from_switch_transformers(tmp_path)
        nn.init.normal_(masked.bias)
        inner = nn.functional.gelu(masked.transform(hidden))
        inner = inner / (inner.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        expected = inner @ theirs.shared.weight.T + masked.bias
        torch.testing.assert_close(masked(**inputs).logits[mask], expected[mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("capacity", [64, 2], ids=["ample", "binding"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_alone(tied, capacity):
    """The library's stack as a decoder, which leaves cross-attention out where there is nothing to look at."""
    settings = dict(is_decoder=True, is_encoder_decoder=False, num_decoder_layers=4, expert_capacity=capacity)
    theirs = make_theirs(SwitchTransformersStack, **settings, tie_word_embeddings=tied)
    config = SwitchConfig(
        **{key: SHAPE[key] for key in ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers")},
        num_experts=SHAPE["num_experts"],
        encoder_sparse_step=theirs.config.decoder_sparse_step,
        expert_capacity=capacity,
        tie_word_embeddings=tied,
        scale_decoder_outputs=tied,
    )
    ours, weights = SwitchForCausalLM(config).eval(), theirs.state_dict()
    table = weights["embed_tokens.weight"]
    state = {"shared.weight": table}
    for name in ours.state_dict():
        if name.startswith("decoder."):
            found = [weights[one.removeprefix("decoder.")] for one in their_names(name, config.num_experts)]
            state[name] = torch.stack(found) if ".experts." in name else found[0]
    output_layer = table if tied else torch.randn(VOCABULARY, SHAPE["d_model"])
    ours.load_state_dict(state | ({} if tied else {"lm_head.weight": output_layer}))
    ids = texts()["input_ids"]
    for side in ("right", "left") if capacity > 2 else ("right",):  # The library's padding takes slots.
        ids[1:2], row = padded(ids[1:2, :6], ids.shape[1], side)
        mask = torch.ones_like(ids)
        mask[1] = row[0]
        with torch.no_grad():
            hidden = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
            expected = (hidden * SHAPE["d_model"] ** -0.5 if tied else hidden) @ output_layer.T
            output = ours(ids, mask, output_routing=True)
        real = mask.bool()
        torch.testing.assert_close(output.logits[real], expected[real], atol=1e-4, rtol=1e-4)
        assert any(record.dropped.any() for record in output.routing) == (capacity == 2)


ATTENTION = dict(d_model=24, d_kv=8, num_heads=3, num_experts=4, min_expert_capacity=1, eval_capacity_factor=1.0)
B, T, D, H, K = 4, 9, 24, 3, 8


def attention_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, a mask with padding on both sides and a row of nothing else, and a learned bias."""
    torch.manual_seed(1)
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[0, 6:], mask[1, :3], mask[3] = False, False, False
    return torch.randn(B, T, D), mask, torch.randn(1, H, T, T)


def loops(query, key, value, bias, real):
    """One query and one head at a time, softmax written out -> (T, H·K) in float64."""
    output = torch.zeros(T, H * K, dtype=torch.float64)
    for head in range(H):
        span = slice(head * K, (head + 1) * K)
        for t in real:
            scores = torch.tensor([float(query[t, span] @ key[s, span] + bias[head, t, s]) for s in real])
            share = (scores.double() - scores.max()).exp()
            output[t, span] = sum(p / share.sum() * value[s, span] for p, s in zip(share, real, strict=True))
    return output


@pytest.mark.parametrize("kind", [ProjectionExperts, AttentionModules])
def test_experts_in_attention_against_loops(kind):
    torch.manual_seed(0)
    config = SwitchConfig(**ATTENTION)
    layer = kind(config, "encoder.1.attention", False).eval()
    for weight in layer.parameters():
        nn.init.normal_(weight, std=0.3)
    hidden, mask, bias = attention_inputs()
    added = bias.masked_fill(~mask[:, None, None, :], torch.finfo(torch.float32).min)
    with torch.no_grad():
        output, routing, _ = layer(hidden, mask, added)
    router = layer.router.classifier.weight.detach().double()
    q, k, v = (weight.detach().double() for weight in (layer.q, layer.k, layer.v))
    dropped = 0
    for b in range(B):
        real = mask[b].nonzero().flatten().tolist()
        states, filled = hidden[b].double(), [0] * 4
        expected = torch.zeros(T, D, dtype=torch.float64)
        if kind is AttentionModules and real:
            share = (router @ states[real].mean(0)).softmax(0)
            expert = int(share.argmax())
            rows = [states @ weight[expert].T for weight in (q, k, v)]
            expected = loops(*rows, bias[0].double(), real) @ layer.o[expert].detach().double().T * share[expert]
            assert routing.expert[b, real].tolist() == [expert] * len(real) and routing.kept[b, real].all()
        elif real:
            rows = [torch.zeros(T, H * K, dtype=torch.float64) for _ in range(3)]
            kept = []
            for t in real:
                share = (router @ states[t]).softmax(0)
                expert = int(share.argmax())
                assert routing.expert[b, t] == expert
                if filled[expert] < -(-len(real) // 4):
                    kept.append(t)
                    for row, weight in zip(rows, (q, k, v), strict=True):
                        row[t] = weight[expert] @ states[t] * share[expert]
                filled[expert] += 1
            dropped += len(real) - len(kept)
            mixed = loops(*rows, bias[0].double(), real) @ layer.o.weight.detach().double().T
            expected[kept] = mixed[kept]
            assert routing.kept[b].nonzero().flatten().tolist() == kept
        torch.testing.assert_close(output[b, real].double(), expected[real], atol=1e-5, rtol=1e-4)
    assert (dropped > 0) == (kind is ProjectionExperts) and output.isfinite().all()


@pytest.mark.parametrize("experts", ["projections", "module"])
def test_attention_experts_are_recorded_and_can_be_changed(experts):
    model = make("classification", attention_experts=experts, attention_sparse_step=2, eval_capacity_factor=None)
    ids = tokens(2, 9)
    name = "encoder.1.attention"
    assert model.config.sparse_layers == ("encoder.0", name, "encoder.1")
    with torch.no_grad():
        plain = model(ids, output_routing=True)
        chosen = int(plain.routing[1].expert[0, 3])
        other = (chosen + 1) % 4
        off = model(ids, interventions=Interventions(ablate={(name, chosen)}), output_routing=True)
        forced = model(ids, interventions=Interventions(force={(name, 3): other}), output_routing=True)
        given = model(ids, interventions=Interventions(choices={name: [other] * 9}), output_routing=True)
        none = model(ids, interventions=Interventions(ablate={(name, e) for e in range(4)}), output_routing=True)
    assert (given.routing[1].expert == other).all() and not torch.equal(given.logits, forced.logits)
    assert plain.routing[1].name == name and not (off.routing[1].expert == chosen).any()
    assert (forced.routing[1].expert[:, 3] == other).all() and not torch.equal(forced.logits, plain.logits)
    assert not none.routing[1].kept.any() and none.logits.isfinite().all()
    if experts == "module":
        assert (forced.routing[1].expert == other).all()  # One choice for the whole sequence.


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A small BERT with random weights, and tokens, in transformers' own folder."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", ".", "a", "cat"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    shape = dict(vocab_size=len(words), hidden_size=24, num_hidden_layers=1, num_attention_heads=2)
    BertModel(BertConfig(**shape, intermediate_size=32)).save_pretrained(folder)
    return folder


def test_another_encoders_states_turn_back_into_text(bert):
    from transformers import AutoModel, AutoTokenizer

    text = "The quick brown fox jumps over the lazy dog."
    tokenizer, encoder = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert).eval()
    torch.manual_seed(0)
    # Another width than the encoder's 24.
    config = SwitchConfig(vocab_size=len(tokenizer), d_model=32, num_layers=1, num_experts=2, inputs_embeds_size=24)
    model = SwitchForMaskedLM(config).train()
    inputs = tokenizer([text, "A lazy cat jumps."], return_tensors="pt", padding=True, return_token_type_ids=False)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    with torch.no_grad():
        states = encoder(**inputs).last_hidden_state
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        model(inputs_embeds=states, attention_mask=inputs["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()

    # As people write it.
    ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    logits = model(inputs_embeds=encoder(**ids).last_hidden_state).logits
    assert tokenizer.decode(logits.argmax(-1)[0]).replace(" .", ".").lower() == text.lower()
    with pytest.raises(ValueError, match="width 20, this model takes 24"):
        model(inputs_embeds=torch.randn(1, 5, 20))


def test_continuous_features_of_any_width_are_classified():
    torch.manual_seed(0)
    config = SwitchConfig(vocab_size=2, d_model=32, num_layers=1, num_experts=2, inputs_embeds_size=7, num_labels=2)
    model = SwitchForSequenceClassification(config).train()
    labels = torch.arange(16) % 2
    features = torch.randn(16, 5, 7) + 2.0 * (2 * labels - 1)[:, None, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        model(inputs_embeds=features, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(model.eval()(inputs_embeds=features).logits.argmax(-1), labels)


def test_an_imported_checkpoint_is_the_same_model_in_every_class(tmp_path):
    save_theirs(tmp_path)
    whole, alone = SwitchModel.from_switch_transformers(tmp_path), SwitchEncoderModel.from_switch_transformers(tmp_path)
    inputs = texts()
    expected = whole(**inputs).encoder_last_hidden_state
    inputs.pop("decoder_input_ids")
    assert torch.equal(alone(**inputs).last_hidden_state, expected)
