"""SageMaker's four functions: it loads the model once, and passes each request through the other three."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # switch_model lies beside this file.

JSON, TEXT = "application/json", "text/plain"


def model_fn(model_dir: str, context: Any = None) -> Any:
    """The loaded model. The platform may pass a context to all four; it is not needed."""
    from switch_model.export.service import Service

    return Service(model_dir)


def input_fn(request_body: str | bytes, content_type: str = JSON, context: Any = None) -> Any:
    """The request. Raises ValueError for a body of another type, or JSON that can't be read."""
    kind = content_type.partition(";")[0].strip().lower()
    body = request_body.decode("utf-8", "replace") if isinstance(request_body, (bytes, bytearray)) else request_body
    if kind == TEXT:
        return {"inputs": body}
    if kind != JSON:
        raise ValueError(f"The content type {content_type} is not read: send {JSON} or {TEXT}.")
    try:
        return json.loads(body)
    except ValueError as error:
        raise ValueError(f"The request is not valid JSON: {error}.") from error


def predict_fn(data: Any, model: Any, context: Any = None) -> Any:
    """The answer, for one text or for several. Raises ValueError for a request that can't be answered."""
    return model.answer(data)


def output_fn(prediction: Any, accept: str = JSON, context: Any = None) -> str:
    """The answer as JSON. Raises ValueError where the caller accepts another type alone."""
    if not {JSON, "application/*", "*/*", ""} & {one.partition(";")[0].strip().lower() for one in accept.split(",")}:
        raise ValueError(f"The answer can't be sent as {accept}: ask for {JSON}.")
    return json.dumps(prediction, ensure_ascii=False)
