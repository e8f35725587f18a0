"""HTML from templates, which escape every value that is not HTML already, and small pieces that many cards have.

What they return is Markup, so that a template takes it as HTML; put pieces together with `+`, which escapes plain text.
Try it: message_card("Prediction", "Type a text.")
"""

from typing import Any, NamedTuple

from markupsafe import Markup

from switch_model.grid.palette import MAX_COLOURS
from train.formatting import percent, signed
from train.templates import templates_of


def render(template: str, **values: Any) -> Markup:
    """A template of this package with values, all escaped but for those that are Markup.

    Args:
        template: its path in the package, such as "sharing/report.html".
    """
    return Markup(templates_of("ui").get_template(template).render(**values))


def part(template: str, macro: str, *values: Any, **named: Any) -> Markup:
    """One macro of a template that holds several pieces."""
    return getattr(templates_of("ui").get_template(template).module, macro)(*values, **named)


def piece(macro: str, *values: Any) -> Markup:
    """One of the pieces in pieces.html."""
    return part("look/pieces.html", macro, *values)


def heading(title: str, level: int = 2) -> Markup:
    """A heading of that level."""
    return piece("heading", title, level)


def quiet(sentence: str) -> Markup:
    """A quiet line. Where it changes every few seconds a screen reader is not to be told each time."""
    return piece("quiet", sentence)


def facts(sentence: str) -> Markup:
    """A quiet line that a screen reader is told of."""
    return piece("facts", sentence)


def notice(sentence: str, role: str = "alert") -> Markup:
    """A line that says what went wrong, and what to do; with role "status", what to know before reading on."""
    return piece("notice", sentence, role)


def note(sentence: str) -> Markup:
    """A line below something else, in small letters."""
    return piece("note", sentence)


def progress_bar(label: str, share: float, at_work: bool = True) -> Markup:
    """How far something is, `share` of 1; `at_work` = it goes on."""
    return piece("progress_bar", label, share, at_work)


def message(sentence: str, role: str = "status") -> Markup:
    """What stands where there is nothing to show."""
    return piece("message", sentence, role)


def message_card(title: str, sentence: str) -> Markup:
    """A card that says why there is nothing to show, and what to do."""
    return heading(title) + message(sentence)


def empty_card(title: str, sentence: str = "Appears once a text is run.") -> Markup:
    """A card that waits for a text, or says why it stays empty."""
    return heading(title) + quiet(sentence)


def markdown_without_html(text: str) -> str:
    """A stranger's Markdown with its HTML as text, and links in place of pictures, which would tell their owner who
    looks at them."""
    # Markdown keeps its own > and &, which escaping HTML would change too.
    return text.replace("<", "&lt;").replace("![", "[")


def in_points(change: float) -> str:
    """A change in points with its sign, "±" where nothing is left of it."""
    return signed(change, 1)


# Where bars of a change of probability end, as shares: a small change has to look small.
BAR_SCALES = (0.05, 0.2, 1.0)


def bar_scale(largest: float) -> float:
    """The shortest of the scales that holds a change."""
    return next(scale for scale in BAR_SCALES if largest <= scale or scale == BAR_SCALES[-1])


class Before(NamedTuple):
    """Where a bar ended before, in percent of its width and in words, and the change since."""

    at: str
    share: str
    change: str


class Bar(NamedTuple):
    """A row for the macro `bar`. Attributes, not keys: a template finds them twice as fast."""

    name: str
    width: str
    value: str
    top: bool
    colour: int | None
    before: Before | None


def bar(
    name: str, share: float, value: str, top: bool = False, colour: int | None = None, before: float | None = None
) -> Bar:
    """One row: a name, a bar of that share, its value in words; with `before`, where it ended then and the change."""
    was = None
    if before is not None:
        was = Before(f"{100 * before:.1f}", percent(before), in_points(100 * (share - before)))
    return Bar(name, f"{100 * share:.1f}", value, top, None if colour is None else colour % MAX_COLOURS, was)
