"""Requests of serving platforms -> answers: what an endpoint's handler and SageMaker's functions share.

Try it: Service("assets/models/ag_news").answer({"inputs": "Oil prices rose."})
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from switch_model.inference.classifier import Prediction
from switch_model.inference.decoding import Decoding
from switch_model.inference.factory import Pipeline, open_pipeline
from switch_model.inference.mask_filler import Filling, MaskFiller
from switch_model.inference.text_generator import Generation, TextGenerator

MAX_TEXTS = 256
# Of every kind of model: whether the answer includes a record per sparse layer.
ROUTING = "routing"


class Service:
    """A checkpoint that answers requests. Keeps no state between them; safe to share between threads.

    Raises CheckpointError when the folder holds no checkpoint that can be opened.
    """

    def __init__(self, opened: str | Path | Pipeline):
        """A folder, or a pipeline that was opened from one."""
        self.pipeline: Pipeline = open_pipeline(opened) if isinstance(opened, (str, Path)) else opened
        writes = isinstance(self.pipeline, TextGenerator)
        self.parameters = (ROUTING, *(field.name for field in fields(Decoding))) if writes else (ROUTING,)

    def answer(self, request: Any) -> dict[str, Any] | list[dict[str, Any]]:
        """Answer {"inputs": text or texts, "parameters": {…}}; "text" is another name of "inputs".

        Parameters: "routing": true adds the records; a model that writes text takes those of `Decoding`.

        Returns:
            For one text an object, for a list of texts (computed in one pass) a list of them: "label" and "scores",
            "generated_text", or "text" and "blanks".

        Raises:
            ValueError: for a request that has no text, or settings that do not fit.
        """
        texts, parameters = self._read(request)
        routing = parameters.pop(ROUTING, False)
        if not isinstance(routing, bool):
            raise ValueError(f"parameters: {ROUTING} must be true or false.")
        answers = []
        for result in self._results([texts] if isinstance(texts, str) else texts, parameters):
            records = {"routing": [record.to_dict() for record in result.routing]} if routing else {}
            answers.append(_in_words(result) | records)
        return answers[0] if isinstance(texts, str) else answers

    def _read(self, request: Any) -> tuple[str | list[str], dict[str, Any]]:
        """Texts and parameters of a request, checked."""
        if not isinstance(request, dict) or len(given := [key for key in ("inputs", "text") if key in request]) != 1:
            raise ValueError('Send an object with one of "inputs" and "text": {"inputs": "a text"}.')
        texts, parameters = request[given[0]], request.get("parameters")
        several = isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)
        if not isinstance(texts, str) and not several:
            raise ValueError(f'"{given[0]}" must be a text, or a list of texts.')
        if len(texts) > MAX_TEXTS and several:
            raise ValueError(f'"{given[0]}" has {len(texts)} texts; one request may have {MAX_TEXTS}.')
        parameters = {} if parameters is None else parameters
        if not isinstance(parameters, dict):
            raise ValueError('"parameters" must be an object.')
        if unknown := [key for key in parameters if key not in self.parameters]:
            raise ValueError(f"parameters: there is no {unknown[0]}. This model takes {', '.join(self.parameters)}.")
        return texts, dict(parameters)

    def _results(self, texts: Sequence[str], parameters: dict[str, Any]) -> Sequence[Prediction | Generation | Filling]:
        if isinstance(self.pipeline, MaskFiller):
            return [self.pipeline(text) for text in texts]  # Each has blanks of its own.
        if isinstance(self.pipeline, TextGenerator):
            return self.pipeline.batch(texts, _decoding(parameters))
        return self.pipeline.batch(texts)


def _decoding(parameters: dict[str, Any]) -> Decoding:
    """The settings. Raises ValueError for a value of another kind."""
    for name, value in parameters.items():
        default = getattr(Decoding(), name)
        kinds: tuple[type, ...] = (int, float) if default is None or isinstance(default, float) else (type(default),)
        if type(value) not in kinds:
            raise ValueError(f"parameters: {name}={value!r} is not allowed: it must be {WORDS[kinds[0]]}.")
    return Decoding(**parameters)


WORDS = {int: "a number", bool: "true or false"}


def _in_words(result: Prediction | Generation | Filling) -> dict[str, Any]:
    if isinstance(result, Prediction):
        return {"label": result.label, "scores": result.scores}
    if isinstance(result, Generation):
        return {"generated_text": result.text}
    blanks = [[{"token": word, "score": score} for word, score in blank.candidates] for blank in result.blanks]
    return {"text": result.text, "blanks": blanks}
