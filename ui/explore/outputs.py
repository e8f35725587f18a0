"""What the handlers of Explore return, by name: a group of outputs that belong together is a named tuple.

The tab builds the same tuples of its components, so that one output more is one field more. An output that is not named
stays as it is. Try it: Step()._asdict()
"""

from typing import Any, NamedTuple

from ui.components.outputs import SKIP, outputs
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
    neighbours_hint: Any


class Controls(NamedTuple):
    """What a kind of model asks of the page: text box, Route, the panel of samples, their source, Generate, Stop, how a
    text is written, neighbours in the batch, the tabs of the detail panel, and what begins a text."""

    text: Any = SKIP
    run: Any = SKIP
    samples: Any = SKIP
    source: Any = SKIP
    generate: Any = SKIP
    stop: Any = SKIP
    settings: Any = SKIP
    neighbours: Any = SKIP
    details: Any = SKIP
    begin: Any = SKIP


# Another model, with a sample that suits it; what a link brings; a sample; a text that comes in steps; a saved record.
Chosen = outputs("Chosen", "caption", "sample", *Shown._fields, *Controls._fields)
Restored = outputs("Restored", "failed", "model", "caption", *Shown._fields, *Controls._fields)
Sampled = outputs("Sampled", "samples", "text", "sample", *Shown._fields, "begin")
Step = outputs("Step", *Shown._fields, "stop")
Reopened = outputs("Reopened", "text", *Shown._fields, "stop", "failed")
