"""The page's named endpoints, for programs.

Try it: gradio_client.Client("http://127.0.0.1:7860").predict("Oil prices rose.", api_name="/predict")
"""

from typing import Any

import gradio as gr

from switch_model import CheckpointError, Prediction
from ui.catalog.models import ModelShelf


class Endpoints:
    """Answers of the page's first classifier."""

    def __init__(self, shelf: ModelShelf):
        self.shelf = shelf

    def predict(self, text: str) -> dict[str, Any]:
        """Class of a text: {"label": the likeliest class, "scores": {class: probability}}."""
        prediction = self._answer(text)
        return {"label": prediction.label, "scores": prediction.scores}

    def trace(self, text: str) -> list[dict[str, Any]]:
        """Where each token went: one routing record per sparse layer, as Routing.to_dict() writes it; with votes."""
        return trace_of(self._answer(text))

    def _answer(self, text: str) -> Prediction:
        if not isinstance(text, str) or not text.strip():
            raise gr.Error("The text is empty: there is nothing to classify.", print_exception=False)
        try:
            return self.shelf.load(self.shelf.default_classifier or self.shelf.default).predictor(text)
        except (CheckpointError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from error


def trace_of(prediction: Prediction) -> list[dict[str, Any]]:
    """A routing record for each sparse layer, as Routing.to_dict() writes it.

    Where a classifier reads its experts alone, the record of the layer that votes has "classes" (C names), "votes" (a
    list of C numbers for each token) and "bias" (C numbers) too: votes and bias add up to the logits.
    """
    records = [record.to_dict() for record in prediction.routing]
    if prediction.votes is not None:
        voting = records[prediction.routing.index(prediction.voters)]
        voting |= {"classes": list(prediction.scores), **prediction.votes_to_dict()}
    return records
