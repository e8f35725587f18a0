"""CheckpointError, raised by everything that opens a checkpoint, and how its messages name a model."""

from typing import Any

# In characters: an untrusted file may hold names of any length.
MAX_MESSAGE = 600


class CheckpointError(Exception):
    """Says why a checkpoint can't be opened and what would be accepted. A long message is cut."""

    def __init__(self, message: str):
        super().__init__(message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} …")


# What opens a model, by the end of its class's name.
_OPENED_BY = {
    "ForSequenceClassification": "Predictor",
    "ForTokenClassification": "TokenClassifier",
    "ForCausalLM": "TextGenerator",
    "ForConditionalGeneration": "TextGenerator",
    "ForMaskedLM": "MaskFiller",
}


def class_name(model: Any) -> str:
    """A model's class; of one of transformers, the library's."""
    return type(getattr(model, "library", model)).__name__


def a_class(model: Any) -> str:
    """The same with its article: "an OlmoeForCausalLM"."""
    name = class_name(model)
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


def opened_by(model: Any) -> str:
    """A sentence on what opens such a model; "" where nothing does."""
    found = next((one for end, one in _OPENED_BY.items() if class_name(model).endswith(end)), "")
    return f" Open it with {found}." if found else ""
