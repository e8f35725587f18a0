"""HTML: the templates of longer pieces, and small pieces that many cards have. Every text that is not ours is escaped.

Try it: message_card("Prediction", "Type a text.")
"""

from html import escape
from typing import Any

from train.templates import templates_of
from ui.look.palette import MAX_COLOURS


def quiet(sentence: str) -> str:
    """A quiet line. Where it changes every few seconds a screen reader is not to be told each time."""
    return f'<p class="facts">{escape(sentence)}</p>'


def facts(sentence: str) -> str:
    """A quiet line that a screen reader is told of."""
    return f'<p class="facts" role="status">{escape(sentence)}</p>'


def notice(sentence: str) -> str:
    """A line that says what went wrong, and what to do."""
    return f'<p class="notice" role="alert">{escape(sentence)}</p>'


def message(sentence: str, role: str = "status") -> str:
    """What stands where there is nothing to show."""
    return f'<p class="message" role="{role}">{escape(sentence)}</p>'


def message_card(title: str, sentence: str) -> str:
    """A card that says why there is nothing to show, and what to do."""
    return f"<h2>{escape(title)}</h2>{message(sentence)}"


def empty_card(title: str) -> str:
    """A card that waits for a text."""
    return f'<h2>{escape(title)}</h2><p class="facts">Appears once a text is routed.</p>'


def visible(token: str) -> str:
    """A token without the space around it; a mark for one that is nothing else. Not escaped."""
    return token.strip() or "␣"


def quoted(token: str) -> str:
    """A token in a heading."""
    return f'<bdi class="quoted">{escape(visible(token))}</bdi>'


def in_points(change: float) -> str:
    """A change in points with its sign, "±" where nothing is left of it."""
    return signed(change, 1)


def signed(value: float, digits: int) -> str:
    """A number with its sign; "±" where nothing is left of it."""
    value = round(value, digits)
    return f"{'+' if value > 0 else '−' if value < 0 else '±'}{abs(value):.{digits}f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def bar(
    name: str, share: float, value: str, top: bool = False, colour: int | None = None, before: float | None = None
) -> str:
    """One row: a name, a bar of that share, its value in words; with `before`, where it ended then and the change."""
    tint = "" if colour is None else f" x{colour % MAX_COLOURS}"
    tick = change = ""
    if before is not None:
        tick = f'<b style="left:{100 * before:.1f}%" title="before: {percent(before)}"></b>'
        change = f"<span>{percent(before)}</span><span>{in_points(100 * (share - before))}</span>"
    return (
        f'<div class="bar{" top" if top else ""}{tint}"><span title="{escape(name)}">{escape(name)}</span>'
        f'<i><u style="width:{100 * share:.1f}%"></u>{tick}</i><span>{value}</span>{change}</div>'
    )


def render(template: str, **values: Any) -> str:
    """A template of this package with values, escaped unless the template says that they are HTML.

    Args:
        template: its path in the package, such as "sharing/report.html".
    """
    return templates_of("ui").get_template(template).render(**values)
