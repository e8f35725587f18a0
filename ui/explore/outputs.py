"""What the handlers of Explore return, by name: a group of outputs that belong together is a named tuple.

The tab builds the same tuples of its components, so that one output more is one field more. An output that is not named
stays as it is. Try it: shown(view, loaded.config)._asdict()
"""

from typing import Any, NamedTuple

from switch_model import SwitchConfig
from ui.cards.of_view import answer_card, closer_cards, notice, saved_in_words, summary
from ui.cards.written import writing_card
from ui.components.expert_panel import panel_value
from ui.components.outputs import SKIP, outputs
from ui.look.html import empty_card, message_card
from ui.sharing.link import address_of
from ui.views.view import View


class Shown(NamedTuple):
    """A view on screen: itself, the card of its answer, a notice above the grid, a sentence on what the grid shows,
    grid, expert panel, and the cards of the token and the load that are looked at."""

    view: Any = SKIP
    answer: Any = SKIP
    notice: Any = SKIP
    summary: Any = SKIP
    grid: Any = SKIP
    panel: Any = SKIP
    token: Any = SKIP
    load: Any = SKIP


class Looked(NamedTuple):
    """What changes with the place that is looked at."""

    view: View | None
    token: str
    load: str


class Closer(NamedTuple):
    """A closer look at a view: title and heat map of the router's probabilities, words and heat maps of pairs of
    experts, what the answer rests on, what if."""

    title: Any
    plot: Any
    pairs_words: Any
    pairs: Any
    votes: Any
    elsewhere: Any


class Drawn(NamedTuple):
    """What follows a view: the closer look, the flow from layer to layer, and the neighbours in the batch."""

    title: Any
    plot: Any
    pairs_words: Any
    pairs: Any
    votes: Any
    elsewhere: Any
    flow_words: Any
    sankey: Any
    matrix: Any
    neighbours_words: Any
    neighbours_grid: Any
    neighbours_of: Any


class Controls(NamedTuple):
    """What a kind of model asks of the page: text box, Route, the panel of samples, their source, Generate, Stop, how a
    text is written, neighbours in the batch, the tabs of the detail panel and which of them is open, and what begins a
    text."""

    text: Any = SKIP
    run: Any = SKIP
    samples: Any = SKIP
    source: Any = SKIP
    generate: Any = SKIP
    stop: Any = SKIP
    settings: Any = SKIP
    neighbours: Any = SKIP
    details: Any = SKIP
    opened: Any = SKIP
    begin: Any = SKIP


# Another model, with a sample that suits it; what a link brings; a sample; a text that comes in steps; a saved record.
Chosen = outputs("Chosen", "caption", "sample", *Shown._fields, *Controls._fields)
Restored = outputs("Restored", "failed", "model", "caption", *Shown._fields, *Controls._fields)
Sampled = outputs("Sampled", "samples", "text", "sample", *Shown._fields, "begin")
Step = outputs("Step", *Shown._fields, "stop")
Reopened = outputs("Reopened", "text", *Shown._fields, "stop")


def shown(view: View, config: SwitchConfig | None, serial: int = 0) -> Shown:
    """A view on screen.

    Args:
        config: None = the view was saved, and its model is not at hand.
        serial: of the expert panel's event that is answered.
    """
    return Shown(
        view,
        answer_card(view),
        notice(view),
        summary(view),
        view.grid() | {"address": address_of(view)},
        panel_value(view, config, serial) if config else {"said": saved_in_words(view)},
        *closer_cards(view),
    )


def blank_outputs(message: str, title: str = "Prediction") -> Shown:
    """When there is only something to say."""
    empty = empty_card("One token"), empty_card("Load per expert")
    return Shown(None, message_card(title, message), "", "", None, None, *empty)


def pending_outputs() -> Shown:
    """Until a model has begun to write."""
    said = {"said": "Appears when the text is written."}
    return blank_outputs("")._replace(answer=writing_card("", "", ""), grid=said, panel=said | {"writes": True})
