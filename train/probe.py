"""A text of the user's choice, routed anew at every evaluation: one watches its routing settle.

Try it: python -m train --dataset toy --probe "bada bedi", then the lines of kind "probe" in metrics.jsonl
"""

import copy
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerFast

from switch_model import Predictor
from switch_model.base import SwitchPreTrainedModel


def make_probe(
    text: str | None, tokenizer: PreTrainedTokenizerFast
) -> Callable[[SwitchPreTrainedModel], dict[str, Any]] | None:
    """A function model -> {"pieces", "label", "score", "layers": [{"layer", "expert", "gate", "kept"}, …]}.

    None without a text, or where it has no tokens.
    """
    # Its own tokenizer: a predictor sets truncation, which must not reach the one that gets saved.
    tokenizer = copy.deepcopy(tokenizer)
    if not text or not tokenizer(text)["input_ids"]:
        return None

    def probe(model: SwitchPreTrainedModel) -> dict[str, Any]:
        training = model.training
        prediction = Predictor(model, tokenizer)(text)
        model.train(training)
        return {
            "pieces": prediction.tokens,
            "label": prediction.label,
            "score": round(prediction.scores[prediction.label], 4),
            "layers": [
                {
                    "layer": record.name,
                    "expert": record.expert[0].tolist(),
                    "gate": [round(gate, 4) for gate in record.gate[0].tolist()],
                    "kept": record.kept[0].tolist(),
                }
                for record in prediction.routing
            ],
        }

    return probe
