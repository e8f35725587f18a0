"""Mixture-of-experts models of transformers: read and changed through hooks, against the library and by hand."""

import threading

import pytest
import torch
from torch import nn

from switch_model import CheckpointError, Interventions, TextGenerator
from switch_model.adapters import families
from switch_model.adapters.loading import load_any
from switch_model.adapters.model import adapt
from switch_model.attribution.direct import direct_attribution
from switch_model.inference.decoding import Decoding
from tests.support.moe_models import CHOICES, EXPERTS, FAMILIES, save_tiny, tiny, tiny_tokenizer

pytestmark = pytest.mark.skipif(bool(families.too_old()), reason="The routers of older versions return other things.")

TEXT = "the team won oil prices rose"
EVERY = pytest.mark.parametrize("family", FAMILIES)
# Their routers take the largest logits; others add a bias, choose groups, or take random draws into account.
BY_LOGITS = ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "gpt_oss", "granitemoe", "minimax", "jamba")


@pytest.fixture(scope="module")
def made():
    """Each family's model, made once."""
    return {family: tiny(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def adapted(made):
    return {family: adapt(model, tiny_tokenizer()) for family, model in made.items()}


@pytest.fixture
def ids():
    return torch.randint(4, 24, (2, 9), generator=torch.Generator().manual_seed(1))


def run(model, ids, interventions=None, mask=None):
    with torch.inference_mode():
        return model(ids, mask, interventions, output_routing=True)


def hooks_of(model) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@EVERY
def test_nothing_changes_what_the_library_computes(family, made, tmp_path):
    folder = save_tiny(tmp_path, made[family])
    generator = TextGenerator.from_checkpoint(folder, "cpu")
    found = generator(TEXT, max_new_tokens=6)
    ids = torch.tensor([tiny_tokenizer()(TEXT)["input_ids"]])
    with torch.inference_mode():
        written = made[family].generate(ids, max_new_tokens=6, do_sample=False)
        logits = made[family](written).logits
    assert found.text.split() == tiny_tokenizer().decode(written[0, ids.shape[1] :], skip_special_tokens=True).split()
    assert torch.equal(run(generator.model, written).logits, logits)
    assert found.answer.tokens[: ids.shape[1]] == TEXT.split() and len(found.answer.tokens) == written.shape[1]
    assert [record.name for record in found.routing] == list(generator.model.config.sparse_layers)
    assert all(record.experts.shape == (1, written.shape[1], CHOICES) for record in found.routing)
    assert generator.model.config.num_experts == EXPERTS


def by_hand(family: str, router, hidden: torch.Tensor):
    """Weights and experts from what goes into the router, as each family's paper or card says."""
    logits = nn.functional.linear(hidden, router.weight, getattr(router, "bias", None)).float()
    if family == "gpt_oss":
        best = logits.topk(CHOICES)
        return best.values.softmax(-1), best.indices
    if family == "deepseek_v3":
        scores = logits.sigmoid()
        asked = scores + router.e_score_correction_bias
        groups = asked.unflatten(-1, (2, EXPERTS // 2))
        best_group = groups.topk(2).values.sum(-1).argmax(-1)
        outside = torch.arange(EXPERTS) // (EXPERTS // 2) != best_group.unsqueeze(-1)
        experts = asked.masked_fill(outside, -torch.inf).topk(CHOICES).indices
        weights = scores.gather(-1, experts)
        return 2.5 * weights / weights.sum(-1, keepdim=True), experts
    best = logits.softmax(-1).topk(CHOICES)
    return (best.values if family == "olmoe" else best.values / best.values.sum(-1, keepdim=True)), best.indices


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "qwen3_moe", "gpt_oss", "deepseek_v3"])
def test_records_are_what_the_hidden_states_give(family, adapted, made, ids):
    inputs = {}
    routers = {router.name: router.module for router in adapted[family].routers}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
        for name, module in routers.items()
    ]
    records = run(adapted[family], ids).routing
    for handle in handles:
        handle.remove()
    for record in records:
        with torch.inference_mode():
            weights, experts = by_hand(family, routers[record.name], inputs[record.name].reshape(-1, 32))
        order = weights.argsort(-1, descending=True)
        torch.testing.assert_close(record.weights.flatten(0, 1), weights.gather(-1, order))
        assert torch.equal(record.experts.flatten(0, 1), experts.gather(-1, order))


@pytest.mark.parametrize("family", BY_LOGITS)
def test_loads_are_those_of_the_librarys_router_logits(family, adapted, made, ids):
    records = run(adapted[family], ids).routing
    with torch.inference_mode():
        theirs = made[family](ids, output_router_logits=True).router_logits
    if theirs is None or len(theirs) != len(records):
        theirs = [logits for logits in theirs or () if logits.shape[-1] == EXPERTS]
    assert len(theirs) == len(records)
    for record, logits in zip(records, theirs, strict=True):
        counts = torch.bincount(logits.reshape(-1, EXPERTS).topk(CHOICES).indices.flatten(), minlength=EXPERTS)
        assert torch.equal(record.choices, counts)
        torch.testing.assert_close(record.load, counts / counts.sum())


# Adds up in another way; weighs what goes into its experts.
NOT_SEPARABLE = {"minimax": "does not add up", "llama4": "take something else"}


@EVERY
def test_what_each_expert_writes_adds_up_to_the_logits(family, adapted):
    generator = TextGenerator(adapted[family], tiny_tokenizer())
    answer = generator(TEXT, max_new_tokens=4)
    if family in NOT_SEPARABLE:
        with pytest.raises(
            ValueError, match=f"can't be told for this {family}.*{NOT_SEPARABLE[family]}.*switch it off"
        ):
            direct_attribution(generator, answer)
        return
    before = hooks_of(adapted[family].library)  # The library has its own, once it has been asked for router logits.
    found = direct_attribution(generator, answer)
    *parts, _ = found.terms
    for index, logit in enumerate(found.logits):
        assert sum(part.values[index] for part in parts) == pytest.approx(logit, abs=1e-4)
    token = len(answer.answer.tokens) - 2
    chosen = {(one.name, expert) for one in answer.routing for expert in one.experts[0, token].tolist()}
    assert {(part.layer, part.expert) for part in found.experts} == chosen
    shared = bool(adapted[family].config.shared_experts)
    assert ("shared experts" in found.others) == shared and hooks_of(adapted[family].library) == before


@EVERY
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_and_counts_nowhere(family, side, adapted, ids):
    if side == "left" and family in ("jamba", "lfm2_moe", "minimax"):
        pytest.skip("The library itself lets padding on the left reach the text here.")
    own, missing = ids[:1, :6], ids.shape[1] - 6
    place = (missing, 0) if side == "left" else (0, missing)
    together = torch.cat([nn.functional.pad(own, place), ids[1:]])
    mask = torch.cat([nn.functional.pad(torch.ones_like(own), place), torch.ones_like(ids[1:])])
    alone, batch = run(adapted[family], own).routing, run(adapted[family], together, mask=mask).routing
    for one, two in zip(alone, batch, strict=True):
        assert torch.equal(one.experts, two.example(0).experts) and int(two.choices.sum()) == 2 * (6 + 9)
        torch.testing.assert_close(one.weights, two.example(0).weights, rtol=1e-3, atol=1e-4)


@EVERY
def test_an_ablated_expert_gets_no_token_and_the_rest_is_chosen_anew(family, adapted, ids):
    model, layer = adapted[family], adapted[family].config.sparse_layers[-1]
    plain = run(model, ids)
    named = plain.routing[-1].experts[0, 0].tolist()
    changes = Interventions(ablate={(layer, expert) for expert in named})
    off = run(model, ids, changes)
    record = off.routing[-1]
    assert record.choices[named].tolist() == [0, 0] and int(record.choices.sum()) == CHOICES * ids.numel()
    assert record.logits[..., named].isneginf().all() and not torch.equal(off.logits, plain.logits)
    # Tokens that had none of the two keep their experts, unless groups are chosen first, or biases weigh more now.
    if family not in ("deepseek_v2", "deepseek_v3", "glm4_moe", "dots1", "phimoe", "ernie4_5_moe"):
        kept = ~torch.isin(plain.routing[-1].experts, torch.tensor(named)).any(-1)
        assert torch.equal(record.experts[kept], plain.routing[-1].experts[kept])
    alone = run(model, ids, [Interventions(), changes])
    torch.testing.assert_close(alone.logits, torch.stack([plain.logits[0], off.logits[1]]), rtol=1e-3, atol=1e-4)
    token = run(model, ids, Interventions(ablate_at={(layer, 4): set(named)})).routing[-1]
    assert torch.equal(token.experts[:, 4], record.experts[:, 4])
    assert torch.equal(token.experts[:, :4], plain.routing[-1].experts[:, :4])


def test_ablation_is_a_router_whose_row_is_minus_infinity(adapted, ids):
    for family, name in (("gpt_oss", "bias"), ("deepseek_v3", "e_score_correction_bias")):
        changed = tiny(family)
        router = adapt(changed, tiny_tokenizer()).routers[-1].module
        with torch.no_grad():
            getattr(router, name)[3] = -torch.inf
        layer = adapted[family].config.sparse_layers[-1]
        with torch.inference_mode():
            expected = changed(ids).logits
        assert torch.equal(run(adapted[family], ids, Interventions(ablate={(layer, 3)})).logits, expected), family


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "gpt_oss", "phimoe"])
def test_too_few_experts_left_and_none(family, adapted, ids):
    model, layer = adapted[family], adapted[family].config.sparse_layers[0]
    one = run(model, ids, Interventions(ablate={(layer, expert) for expert in range(1, EXPERTS)})).routing[0]
    assert one.choices.tolist() == [ids.numel(), *[0] * (EXPERTS - 1)] and one.expert.eq(0).all()
    none = run(model, ids, Interventions(ablate={(layer, expert) for expert in range(EXPERTS)}))
    assert none.routing[0].choices.sum() == 0 and none.logits.isfinite().all()


def test_a_group_is_chosen_by_the_experts_that_are_left_in_it(adapted, ids):
    model, layer = adapted["deepseek_v3"], adapted["deepseek_v3"].config.sparse_layers[0]
    scores = run(model, ids).routing[0].logits.sigmoid() + model.routers[0].module.e_score_correction_bias
    off = {(layer, expert) for expert in range(EXPERTS) if expert not in (0, 4)}
    record = run(model, ids, Interventions(ablate=off, top_k=1)).routing[0]
    assert torch.equal(record.expert, torch.where(scores[..., 0] > scores[..., 4], 0, 4))


@EVERY
def test_a_forced_expert_comes_first_and_other_tokens_stay(family, adapted, ids):
    model, layer = adapted[family], adapted[family].config.sparse_layers[-1]
    plain, changed = run(model, ids).routing[-1], run(model, ids, Interventions(force={(layer, 4): 6})).routing[-1]
    assert changed.experts[:, 4, 0].tolist() == [6, 6] and (changed.weights[:, 4, 0] > 0).all()
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(changed.experts[:, others], plain.experts[:, others])
    with pytest.raises(ValueError, match="9 tokens"):
        run(model, ids, Interventions(force={(layer, 9): 6}))
    if family == "mixtral":  # Its weights are the softmax over the two.
        pair = plain.logits[:, 4].gather(-1, changed.experts[:, 4])
        torch.testing.assert_close(changed.weights[:, 4], pair.softmax(-1))


@EVERY
def test_another_k_is_the_model_with_another_k(family, adapted, made, ids):
    if family == "phimoe":
        with pytest.raises(ValueError, match="another number of experts"):
            run(adapted[family], ids, Interventions(top_k=3))
        return
    name = {"ernie4_5_moe": "moe_k", "hunyuan_v1_moe": "moe_topk"}.get(family, "num_experts_per_tok")
    other = tiny(family, **{name: 3})
    other.load_state_dict(made[family].state_dict())
    found = run(adapted[family], ids, Interventions(top_k=3))
    with torch.inference_mode():
        torch.testing.assert_close(found.logits, other(ids).logits)
    layer = adapted[family].config.sparse_layers[-1]
    rows = run(adapted[family], ids, [Interventions(top_k=1), Interventions(top_k={layer: 3})]).routing[-1]
    assert (rows.weights[0] != 0).sum(-1).unique().tolist() == [1] and (rows.weights[1] != 0).all()


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "deepseek_v3", "jamba"])
def test_changes_hold_during_generation_with_a_cache(family, adapted):
    generator = TextGenerator(adapted[family], tiny_tokenizer())
    layer = adapted[family].config.sparse_layers[-1]
    changes = Interventions(ablate={(layer, 0)}, force={(layer, 2): 7, (layer, 8): 5}, top_k={layer: 3})
    found = generator(TEXT, max_new_tokens=6, interventions=changes)
    ids = tiny_tokenizer()(TEXT)["input_ids"]
    for _ in range(found.new_tokens):  # The same without a cache, token by token.
        forced = {place: expert for place, expert in changes.force.items() if place[1] < len(ids)}
        step = Interventions(changes.ablate, forced, top_k=changes.top_k)
        ids.append(int(run(adapted[family], torch.tensor([ids]), step).logits[0, -1].argmax()))
    assert found.text.strip() == tiny_tokenizer().decode(ids[6:], skip_special_tokens=True)
    record = found.routing[-1]
    assert record.choices[0] == 0 and record.expert[0, 2] == 7 and record.experts.shape[-1] == 3


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "gpt_oss"])
def test_texts_of_other_lengths_are_written_together_as_alone(family):
    # Saved with the balance loss on, as after a training: the library would compute it in every step.
    generator = TextGenerator(adapt(tiny(family, output_router_logits=True), tiny_tokenizer()), tiny_tokenizer())
    layer = generator.model.config.sparse_layers[-1]
    texts, decoding = [TEXT, "rain fell", "the team won", "rain"], Decoding(max_new_tokens=5)
    forced, fewer = Interventions(force={(layer, 0): 7}), Interventions(ablate={(layer, 0)}, top_k=1)
    changes = [forced, fewer, forced, fewer]
    for one, text, own in zip(generator.batch(texts, decoding, changes), texts, changes, strict=True):
        alone = generator.write(text, decoding, own)
        assert one.text == alone.text and torch.equal(one.routing[-1].experts, alone.routing[-1].experts)
    with pytest.raises(ValueError, match="2 interventions for 4 texts"):
        generator.batch(texts, decoding, changes[:2])


def test_hooks_are_gone_after_a_call_and_after_an_error(adapted, made, ids):
    model, layer = adapted["mixtral"], adapted["mixtral"].config.sparse_layers[1]
    plain, before = run(model, ids).logits, hooks_of(adapt(tiny("mixtral"), tiny_tokenizer()).library)
    assert hooks_of(made["mixtral"]) >= before == 0
    before = hooks_of(made["mixtral"])  # The library has its own, once it has been asked for router logits.

    def fail(*_):
        raise RuntimeError("broken")

    for module in (model.routers[1].module, made["mixtral"].lm_head):
        handle = module.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="broken"):
            run(model, ids, Interventions(ablate={(layer, 1)}, top_k=1))
        handle.remove()
        assert hooks_of(made["mixtral"]) == before and torch.equal(run(model, ids).logits, plain)


def test_another_thread_keeps_its_own_choices(adapted, ids):
    model, layer = adapted["mixtral"], adapted["mixtral"].config.sparse_layers[1]
    plain, found = run(model, ids), []

    def elsewhere(*_):
        if not found:
            found.append(None)
            thread = threading.Thread(target=lambda: found.append(run(model, ids)))
            thread.start()
            thread.join()

    handle = model.library.lm_head.register_forward_pre_hook(elsewhere)
    before = model.library.model.layers[0].register_forward_pre_hook(elsewhere)
    changed = run(model, ids, Interventions(ablate={(layer, 1)}))
    handle.remove()
    before.remove()
    assert torch.equal(found[1].logits, plain.logits) and changed.routing[1].choices[1] == 0


def test_shuffling_the_choices_by_their_own_order_changes_nothing(adapted, ids):
    for family in ("mixtral", "deepseek_v3", "llama4"):
        plain = run(adapted[family], ids)
        own = [{record.name: record.experts[row].tolist() for record in plain.routing} for row in (0, 1)]
        same = run(adapted[family], ids, [Interventions(choices=choices) for choices in own])
        torch.testing.assert_close(same.logits, plain.logits)
        others = run(adapted[family], ids, [Interventions(choices=choices) for choices in reversed(own)])
        assert torch.equal(others.routing[0].experts, plain.routing[0].experts.flip(0))
        torch.testing.assert_close(others.routing[0].weights, plain.routing[0].weights)


def test_what_can_not_be_changed_says_so(adapted, ids):
    model, layer = adapted["mixtral"], adapted["mixtral"].config.sparse_layers[0]
    for changes, said in (
        (Interventions(top_k=9), "has 8 experts"),
        (Interventions(ablate={(layer, 8)}), "experts are 0 to 7"),
        (Interventions(ablate={("encoder.0", 0)}), "no sparse layer"),
        (Interventions(capacity_factor=0.5), "no capacity"),
        (Interventions(choices={layer: [0] * 9}), "2 experts for each token"),
    ):
        with pytest.raises(ValueError, match=said):
            run(model, ids, changes)


def test_half_precision_and_missing_weights(tmp_path, ids):
    folder = save_tiny(tmp_path, tiny("olmoe"))
    half, _ = load_any(folder, "cpu", dtype="bfloat16")
    tiny("olmoe").half().save_pretrained(folder / "half")
    tiny_tokenizer().save_pretrained(folder / "half")
    # A CPU is slow in float16; whoever asks for it has it.
    kinds = [load_any(folder / "half", "cpu", dtype=dtype)[0].library.dtype for dtype in (None, "float16")]
    assert kinds == [torch.float32, torch.float16]
    assert half.library.dtype == torch.bfloat16 and run(half, ids).routing[0].weights.dtype == torch.float32
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack model\.norm\.weight"):
        load_any(folder)
