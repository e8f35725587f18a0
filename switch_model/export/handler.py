"""A Hugging Face Inference Endpoint: it makes one EndpointHandler of this folder and calls it with each request."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # switch_model lies beside this file.


class EndpointHandler:
    """What the platform makes, with the folder that it unpacked, and calls."""

    def __init__(self, path: str = ""):
        from switch_model.export.service import Service

        self.service = Service(path or Path(__file__).resolve().parent)

    def __call__(self, data: Any) -> Any:
        """{"inputs": text or texts, "parameters": {…}} -> label and scores, generated_text, or filled blanks.

        A request that can't be answered gets {"error": why}.
        """
        try:
            return self.service.answer(data)
        except ValueError as error:
            return {"error": str(error)}
