"""What one visitor is looking at when the model answers with words: a text it wrote, or blanks it filled.

The counterpart of `View`, with the same ways to look elsewhere, change the routing and step back.
Try it: OutputView.of(loaded_model, "tinystories", "Once upon a time")
"""

from dataclasses import dataclass, replace

from switch_model import Filling, Generation, Interventions, MaskFiller, Routing, TextGenerator
from switch_model.inference.decoding import Decoding
from switch_model.inference.traces import TokenTrace
from ui.catalog.models import LoadedModel
from ui.views.view import NO_CHANGES, View, past_of

Output = Generation | Filling

# What one visitor may ask for, on a page that others use too: tokens of a text, texts followed at once, and seconds.
MAX_LENGTH, MAX_BEAMS, MAX_SECONDS = 200, 8, 60.0
PLAIN = Decoding(max_seconds=MAX_SECONDS)


@dataclass(frozen=True)
class OutputView:
    """One visitor's view.

    Attributes:
        model: its key on the shelf.
        text: what was asked.
        decoding: how it was written; means nothing for blanks.
        base: the answer as the model routes by itself.
        output: the same with `changes`.
        stack: which of the answer's bands is looked at more closely.
        token, layer: what is looked at in it, counted within the band.
        changes, past: as in View.
        saved_from: title of the model that a saved view was made with; its model's key is "".
    """

    model: str
    text: str
    decoding: Decoding
    base: Output
    output: Output
    stack: int
    token: int
    layer: int
    changes: Interventions = NO_CHANGES
    past: tuple[Interventions, ...] = ()
    saved_from: str = ""

    # What only a classifier's view has.
    true_label = matters = None

    @classmethod
    def of(
        cls, loaded: LoadedModel, model: str, text: str, decoding: Decoding, changes: Interventions = NO_CHANGES
    ) -> "OutputView":
        """A text just answered. Raises ValueError when it can't be."""
        base = answer(loaded, text, decoding)
        return cls.showing(model, text, decoding, base).with_changes(loaded, changes)

    @classmethod
    def showing(cls, model: str, text: str, decoding: Decoding, output: Output) -> "OutputView":
        """An answer that is there already."""
        return cls(model, text, decoding, output, output, *_first_look(output))

    @property
    def prediction(self) -> TokenTrace:
        """The band that is looked at."""
        return self.output.bands[self.stack]

    @property
    def records(self) -> tuple[Routing, ...]:
        return self.output.routing

    @property
    def bands(self) -> tuple[TokenTrace, ...]:
        return self.output.bands

    @property
    def changed(self) -> bool:
        return self.changes != NO_CHANGES

    @property
    def place(self) -> tuple[int, int]:
        """(token, layer) counted through all bands, as the grid does."""
        before = self.output.bands[: self.stack]
        return (
            self.token + sum(len(band.tokens) for band in before),
            self.layer + sum(len(band.routing) for band in before),
        )

    def looking_at(self, token: int, layer: int) -> "OutputView":
        """Another place, counted through all bands and kept within what there is: a browser may send anything."""
        bands = self.output.bands
        layers = [(stack, index) for stack, band in enumerate(bands) for index in range(len(band.routing))]
        stack, index = layers[min(max(layer, 0), len(layers) - 1)] if layers else (self.stack, 0)
        token -= sum(len(band.tokens) for band in bands[:stack])
        return replace(self, stack=stack, layer=index, token=min(max(token, 0), len(bands[stack].tokens) - 1))

    def with_changes(self, loaded: LoadedModel, changes: Interventions, sliding: bool = False) -> "OutputView":
        """The same text answered under other changes, which `undone` takes back. Raises ValueError when they don't fit.

        Args:
            sliding: the capacity goes on from the change before: both are one step back.
        """
        if changes == self.changes:
            return self
        return self._answered(loaded, changes, past_of(self, changes, sliding))

    def undone(self, loaded: LoadedModel) -> "OutputView":
        """One step back."""
        return self._answered(loaded, self.past[-1], self.past[:-1]) if self.past else self

    def _answered(self, loaded: LoadedModel, changes: Interventions, past: tuple[Interventions, ...]) -> "OutputView":
        output = self.base if changes == NO_CHANGES else answer(loaded, self.text, self.decoding, changes)
        # Another text may be shorter.
        token = min(self.token, len(output.bands[self.stack].tokens) - 1)
        return replace(self, output=output, changes=changes, past=past, token=token)


def answer(loaded: LoadedModel, text: str, decoding: Decoding, changes: Interventions = NO_CHANGES) -> Output:
    """What the model makes of a text. Raises ValueError when the text or the changes do not fit."""
    pipeline, changes = loaded.pipeline, None if changes == NO_CHANGES else changes
    if isinstance(pipeline, TextGenerator):
        return pipeline.write(text, decoding, changes)
    if isinstance(pipeline, MaskFiller):
        return pipeline(text, changes)
    raise ValueError(f"{loaded.title} {loaded.kind.does}: it gives no text.")


def kept_changes(view: View | OutputView | None, model: str) -> Interventions:
    """What is switched off stays off for the next text of the same model; what was forced was that text's."""
    return replace(view.changes, force={}) if view is not None and view.model == model else NO_CHANGES


def _first_look(output: Output) -> tuple[int, int, int]:
    """(stack, token, layer): the first token written, or the first blank."""
    routed = [stack for stack, band in enumerate(output.bands) if band.routing]
    stack = routed[-1] if routed else len(output.bands) - 1
    band = output.bands[stack]
    token = output.blanks[0].token if isinstance(output, Filling) else band.written
    return stack, min(token, len(band.tokens) - 1), 0
