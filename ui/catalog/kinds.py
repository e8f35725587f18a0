"""What a model does with a text, and the words that the page has for each kind.

Try it: kind_of("SwitchForCausalLM").word
"""

from dataclasses import dataclass

from switch_model.adapters.model import AdaptedModel
from switch_model.models.pretrained import SwitchPreTrainedModel


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        word: for a picker, behind the model's name.
        does: what it does, in a sentence.
        asks: what stands in the empty box of the text.
        example: a text to begin with.
        act: the button that starts it.
        answers: what heads the card of its answer.
        samples: the source of its bundled sample texts.
    """

    word: str
    does: str
    asks: str
    example: str
    act: str
    answers: str
    samples: str

    @property
    def writes(self) -> bool:
        """Whether it answers with text of its own, token by token."""
        return self in (TRANSLATOR, STORYTELLER, RESTORER)


CLASSIFIER = Kind("", "classifies", "Type or paste a text. Ctrl+Enter runs it.", "", "Run", "Prediction", "bundled")
TRANSLATOR = Kind(
    "encoder-decoder",
    "answers a text with a text",
    "Type the text to translate or answer. Ctrl+Enter starts.",
    "A man is riding a horse on the beach.",
    "Generate",
    "The model’s text",
    "captions",
)
STORYTELLER = Kind(
    "causal LM",
    "continues a text",
    "Type how it begins. Ctrl+Enter lets the model continue it.",
    "Once upon a time there was a little",
    "Generate",
    "The model’s text",
    "beginnings",
)
# Trained by span corruption: the class of a translator, but it reads gaps.
RESTORER = Kind(
    "span corruption",
    "restores the gaps of a text",
    "Type a text with ___ where words are missing. Ctrl+Enter lets the model restore them.",
    "Thank you ___ me to your party ___ week.",
    "Generate",
    "The model’s text",
    "blanks",
)
FILLER = Kind(
    "masked LM",
    "fills blanks",
    "Type a text with ___ where a word is missing. Ctrl+Enter fills it in.",
    "One day, a little girl named ___ went to the park to ___ with her friends.",
    "Fill in",
    "Filled in",
    "blanks",
)

# Of this package's models and of transformers'.
_BY_ENDING = {
    "ForConditionalGeneration": TRANSLATOR,
    "ForCausalLM": STORYTELLER,
    "ForMaskedLM": FILLER,
}


def kind_of(architecture: str, restores_gaps: bool = False) -> Kind:
    """By what a checkpoint's configuration says: the name of its model class, and whether it was trained on gaps."""
    kind = next((kind for ending, kind in _BY_ENDING.items() if architecture.endswith(ending)), CLASSIFIER)
    return RESTORER if kind is TRANSLATOR and restores_gaps else kind


def kind_of_model(model: SwitchPreTrainedModel | AdaptedModel) -> Kind:
    """Of an open model."""
    named = type(model.library if isinstance(model, AdaptedModel) else model).__name__
    return kind_of(named, model.config.restores_gaps)
