"""Probe text: a text of the user's choice, routed at every evaluation, to see its routing settle.

Try it: python -m train --dataset toy --probe "bada bedi", then the lines of kind "probe" in metrics.jsonl
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from switch_model import Predictor, SwitchForSequenceClassification
from switch_model.inference.pipeline import TextPipeline, replace_surrogates
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.routing import Routing


def make_probe(
    text: str | None, tokenizer: PreTrainedTokenizerFast
) -> Callable[[SwitchPreTrainedModel], dict[str, Any]] | None:
    """A function model -> {"pieces", "layers": [{"layer", "expert", "gate", "kept"}, …]}, for a classifier also "label"
    and "score". For an encoder-decoder, the encoder's layers.

    None without a text, or if it has no tokens.
    """
    text = text and replace_surrogates(text)  # A command line may contain any bytes.
    # A copy: a predictor sets truncation, which must not change the tokenizer that is saved.
    tokenizer = copy.deepcopy(tokenizer)
    if not text or not tokenizer(text)["input_ids"]:
        return None

    def probe(model: SwitchPreTrainedModel) -> dict[str, Any]:
        training = model.training
        try:
            return _of_class(model) if isinstance(model, SwitchForSequenceClassification) else _of_tokens(model)
        finally:
            model.train(training)

    def _of_class(model: SwitchForSequenceClassification) -> dict[str, Any]:
        prediction = Predictor(model, tokenizer)(text)
        score = round(prediction.scores[prediction.label], 4)
        said = {"label": prediction.label, "score": score}
        return {"pieces": prediction.tokens} | said | {"layers": _layers(prediction.routing)}

    @torch.inference_mode()
    def _of_tokens(model: SwitchPreTrainedModel) -> dict[str, Any]:
        read = TextPipeline(model, tokenizer).read(text)
        input_ids = torch.tensor([read.ids], device=model.device)
        both = model.stacks == ("encoder", "decoder")
        begin = {"decoder_input_ids": input_ids[:, :1]} if both else {}
        output = model(input_ids, output_routing=True, **begin)
        reading = [record for record in output.routing if record.name.startswith("encoder") or not both]
        return {"pieces": read.tokens, "layers": _layers([record.detached().example(0) for record in reading])}

    return probe


def _layers(records: Sequence[Routing]) -> list[dict[str, Any]]:
    return [
        {
            "layer": record.name,
            "expert": record.expert[0].tolist(),
            "gate": [round(gate, 4) for gate in record.gate[0].tolist()],
            "kept": record.kept[0].tolist(),
        }
        for record in records
    ]
