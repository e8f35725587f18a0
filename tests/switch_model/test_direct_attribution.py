"""What each expert writes: its parts of the logits add up, are its own, and follow the changes to the routing."""

import pytest
import torch

from switch_model import Interventions, MaskFiller, Predictor, TextGenerator
from switch_model.attribution.direct import DirectAttribution, direct_attribution, direct_attributions
from tests.support.pages import (
    save_tiny_checkpoint,
    save_tiny_mask_filler,
    save_tiny_storyteller,
    save_tiny_translator,
)


def of_a_class(folder, **settings):
    pipeline = Predictor.from_checkpoint(save_tiny_checkpoint(folder, **settings), "cpu")
    return pipeline, pipeline("Oil prices rose as traders won")


def of_a_story(folder):
    pipeline = TextGenerator.from_checkpoint(save_tiny_storyteller(folder), "cpu")
    return pipeline, pipeline("Once upon a time", max_new_tokens=6)


def of_a_blank(folder):
    pipeline = MaskFiller.from_checkpoint(save_tiny_mask_filler(folder), "cpu")
    return pipeline, pipeline("The ___ sat here")


def of_a_translation(folder):
    pipeline = TextGenerator.from_checkpoint(save_tiny_translator(folder), "cpu")
    return pipeline, pipeline("The cat", max_new_tokens=12)  # Longer than what it reads.


KINDS = {
    "story": of_a_story,
    "blank": of_a_blank,
    "translation": of_a_translation,
    "mean and max": lambda folder: of_a_class(folder, pooling="mean+max"),
    "attention, own token": lambda folder: of_a_class(folder, pooling="attention", cls_token=True),
    "experts in attention": lambda folder: of_a_class(folder, attention_experts="projections", attention_sparse_step=1),
    "mlp head, weak residual": lambda folder: of_a_class(folder, classifier_head="mlp", expert_residual=0.5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_add_up_to_the_logits(kind, tmp_path):
    pipeline, answer = KINDS[kind](tmp_path / "model")
    found = direct_attribution(pipeline, answer)
    *parts, rounding = found.terms
    for index, logit in enumerate(found.logits):
        assert sum(part.values[index] for part in parts) == pytest.approx(logit, abs=1e-4)
    assert rounding.name == "rounding" and any(abs(part.values[0]) > 1e-3 for part in found.experts)
    layers = {record.name for record in answer.traces[-1].routing if not record.name.endswith(".attention")}
    assert {part.layer for part in found.experts} == layers and {"embedding", "attention"} <= set(found.others)
    assert ("cross-attention" in found.others) == (kind == "translation")
    assert DirectAttribution.from_dict(found.to_dict()) == found
    assert not any(module._forward_hooks for module in pipeline.model.modules())


@torch.inference_mode()
def test_an_experts_part_is_its_output_through_the_frozen_norm(tmp_path):
    generator, answer = of_a_story(tmp_path / "model")
    model, trace, token = generator.model, answer.answer, 3
    found = direct_attributions(generator, answer, [1, token])[1]
    stack = model.decoder(model.shared(torch.tensor([trace.ids])), torch.ones(1, len(trace.ids), dtype=torch.bool))
    # The last expert's output is the last addition: without it, and at the same scale, its part of the logit is gone.
    written, weight = stack.expert_outputs[-1][0, token], model.decoder.final_norm.weight
    states = []
    handle = model.decoder.final_norm.register_forward_pre_hook(lambda _, args: states.append(args[0][0, token]))
    model(torch.tensor([trace.ids]))
    handle.remove()
    scale = weight / (states[0].square().mean() + model.config.layer_norm_epsilon).sqrt()
    rows = model.get_output_embeddings().weight[found.ids]
    factor = model.config.d_model**-0.5 if model.config.scale_decoder_outputs else 1.0
    last = next(part for part in found.experts if part.layer == trace.routing[-1].name)
    assert last.values == pytest.approx((factor * rows @ (written * scale)).tolist(), abs=1e-4)
    assert last.expert == int(trace.routing[-1].expert[0, token]) and found.ids[0] == trace.ids[token + 1]
    assert last.promoted[0][1] >= max(last.values) and last.suppressed[0][1] <= min(last.values)


def test_changes_to_the_routing_are_in_it_and_errors_are_said(tmp_path):
    predictor, answer = of_a_class(tmp_path / "model")
    everywhere = {(record.name, expert) for record in answer.routing for expert in range(record.num_experts)}
    off = direct_attribution(predictor, answer, interventions=Interventions(ablate=everywhere))
    assert off.experts == []
    generator, story = of_a_story(tmp_path / "story")
    with pytest.raises(ValueError, match="no token 99: the text has tokens 0 to"):
        direct_attribution(generator, story, 99)
    voting, told = of_a_class(tmp_path / "votes", readout="experts", pooling="mean")
    with pytest.raises(ValueError, match="votes"):
        direct_attribution(voting, told)
