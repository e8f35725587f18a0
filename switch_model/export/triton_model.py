"""Triton's Python backend: texts in, answers as JSON out. Requests that Triton gathers are computed in one pass.

Beside it (as model.py) lies either what reads texts for a graph, which is a model of its own in the repository, or a
checkpoint with switch_model.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


class TritonPythonModel:
    """What the server makes once for each instance of the model, and calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open what answers: the graph that lies in the repository too, or a checkpoint."""
        self.answer = Graph(args["model_name"]).answer if (HERE / "texts.py").is_file() else _service().answer

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers in the order of the requests; those with the same parameters are computed in one pass."""
        groups: dict[str, list[tuple[int, list[str]]]] = {}
        for place, request in enumerate(requests):
            texts, parameters = _strings(request, "TEXT"), _strings(request, "PARAMETERS")
            groups.setdefault(parameters[0] if parameters else "{}", []).append((place, texts))
        answers: dict[int, Any] = {}
        for common, members in groups.items():
            answers |= self._answers(members, common)
        return [_response(answers[place]) for place in range(len(requests))]

    def _answers(self, members: list[tuple[int, list[str]]], parameters: str) -> dict[int, Any]:
        """Place of each request -> its answers, or the error of one that can't be answered."""
        try:
            request = {"inputs": [text for _, texts in members for text in texts], "parameters": json.loads(parameters)}
            found = iter(self.answer(request))
            return {place: [next(found) for _ in texts] for place, texts in members}
        except ValueError as error:
            if len(members) == 1:
                return {members[0][0]: error}
        # One of them can't be answered, and must not take the others with it.
        return {place: one for member in members for place, one in self._answers([member], parameters).items()}


class Graph:
    """Asks the graph, a model of this repository."""

    def __init__(self, name: str):
        from texts import Texts

        self.name, self.texts = f"{name}-graph", Texts(HERE)

    def answer(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """An answer for each text. Raises ValueError for texts that the graph can't read."""
        inputs = self.texts.inputs(request["inputs"])
        response = pb_utils.InferenceRequest(
            model_name=self.name,
            requested_output_names=["logits"],
            inputs=[pb_utils.Tensor(name, values) for name, values in inputs.items()],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
        ).exec()
        if response.has_error():
            raise pb_utils.TritonModelException(response.error().message())
        logits = pb_utils.get_output_tensor_by_name(response, "logits").as_numpy()
        return self.texts.answers(logits, inputs["input_ids"])


def _service() -> Any:
    from switch_model.export.service import Service

    return Service(HERE)


def _strings(request: Any, name: str) -> list[str]:
    """The strings of an input; none where the request lacks it."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return [] if tensor is None else [one.decode("utf-8", "replace") for one in tensor.as_numpy().reshape(-1)]


def _response(answers: list[dict[str, Any]] | ValueError) -> Any:
    if isinstance(answers, ValueError):
        return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(answers)))
    said = np.array([[json.dumps(one, ensure_ascii=False).encode()] for one in answers], dtype=object)
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("ANSWER", said)])
