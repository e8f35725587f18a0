"""What is on screen as one HTML file: opens offline, in any browser, long after the model is gone.

What stands on the page stands here: the text, its class, the grid, the changes, who voted for what, what matters once
it was measured, the card “what if”, the chosen token, the loads, the probabilities and an open flow.
Try it: report_html(view, "AG News")
"""

from html import escape
from typing import Any

from switch_model.analysis.layer_names import layer_title
from switch_model.counterfactuals import WhatIf
from switch_model.plots.routing import router_probabilities
from ui.cards.counterfactuals import what_if_card
from ui.cards.flow import draw_flow
from ui.cards.importance import in_points, matters_in_words, matters_table
from ui.cards.prediction import load_card, prediction_card, token_card
from ui.cards.votes import strip_bar, votes_card, votes_strip
from ui.components.expert_panel import words_of_view
from ui.look.palette import CELL_INK, MAX_COLOURS, palette_css
from ui.look.theme import STYLE_SHEET
from ui.views.view import View


def report_html(view: View, title: str, answer: WhatIf | None = None, flow: bool = False) -> str:
    """The whole file, with the page's own looks.

    Args:
        title: the model's name for people.
        answer: what the chosen token would do elsewhere; None = the model can't be asked.
        flow: whether the flow from layer to layer is on screen.
    """
    prediction, before = view.prediction, view.base if view.changed else None
    parts = [
        '<div class="page-head"><h1>Switch Explorer</h1><p>A saved view: nothing here asks a model.</p></div>',
        f'<div class="card"><h2>Text, read by {escape(title)}</h2><p dir="auto">{escape(view.text)}</p></div>',
        f'<div class="card" id="prediction">'
        f"{prediction_card(prediction, view.true_label, None, before)}{_changes(view)}</div>",
    ]
    if prediction.routing:
        record = prediction.routing[view.layer]
        figure = router_probabilities(record, prediction.tokens, view.token)
        parts += [
            f'<div class="card"><h2>Where each token went</h2>{_static_grid(view)}</div>',
            f'<div class="card" id="votes">{votes_card(view, still=True)}</div>',
            _what_matters(view),
            f'<div class="card" id="what-if">{what_if_card(view, answer, still=True)}</div>' if answer else "",
            f'<div class="card">{token_card(prediction, view.token, view.layer)}</div>',
            *(f'<div class="card">{load_card(prediction, layer)}</div>' for layer in range(len(prediction.routing))),
            f'<div class="card"><h2>Router probabilities, {layer_title(record.name)}</h2>'
            f"{_picture(figure, with_library=True)}</div>",
            _flow(view) if flow else "",
        ]
    return page_html("".join(parts))


def page_html(body: str) -> str:
    """A file that opens offline: this page's looks around the given cards."""
    style = f":root{{--cell-ink:{CELL_INK}}}\n{palette_css()}\n{STYLE_SHEET.read_text(encoding='utf-8')}\n{_OWN_STYLE}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Switch Explorer: a saved view</title><style>{style}</style></head>"
        f'<body class="saved">{body}</body></html>\n'
    )


_OWN_STYLE = """
body.saved { font: 15px/1.5 system-ui, sans-serif; color: var(--sx-ink); }
body.saved { max-width: 1080px; margin: 0 auto; padding: 20px; }
.saved * { box-sizing: border-box; }
.saved .flow { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 12px; }
body.saved .card { margin-top: 14px; }
.static-column { display: inline-flex; flex-direction: column; margin: 0 4px 12px 0; vertical-align: top; }
.static-column .cell { display: block; cursor: default; }
.saved .what-row { cursor: default; } .saved .what-row:hover { background: none; }
"""


def _changes(view: View) -> str:
    said = words_of_view(view)
    return f'<p class="facts">Changed: {escape(" · ".join(said))}.</p>' if said else ""


def _picture(figure: Any, with_library: bool = False) -> str:
    """A figure as HTML; the first one of a file brings plotly along."""
    return figure.to_html(
        full_html=False, include_plotlyjs="inline" if with_library else False, config={"displayModeBar": False}
    )


def _flow(view: View) -> str:
    said, sankey, matrix = draw_flow(view, opened=True)
    pictures = (
        "" if sankey is None else f'<div class="flow"><div id="sankey">{_picture(sankey)}</div>{_picture(matrix)}</div>'
    )
    return f'<div class="card run-plots"><h2>Flow from layer to layer</h2>{said}{pictures}</div>'


def _what_matters(view: View) -> str:
    """What the predicted class loses or gains without each expert, in points; nothing before it was measured."""
    if view.matters is None:
        return ""
    return (
        f'<div class="card"><h2>What matters to {escape(view.matters.label)}</h2>{matters_in_words(view)}'
        '<p class="facts">Points that it gains or loses without an expert. Bars above the tokens in the grid: without '
        f"that token.</p>{matters_table(view)}</div>"
    )


def _static_grid(view: View) -> str:
    """The grid without its script: a column per token, a cell per layer."""
    records = view.prediction.routing
    routes = [
        (
            None if int(record.capacity) == 0 else record.expert[0].tolist(),
            record.dropped[0].tolist(),
            ((record.expert != base.expert) | (record.dropped != base.dropped))[0].tolist(),
        )
        for record, base in zip(records, view.base.routing, strict=True)
    ]
    names = " · ".join(layer_title(record.name) for record in records)
    matters_T = [0.0] * len(view.prediction.tokens) if view.matters is None else view.matters.tokens.tolist()
    most = max(0.001, *map(abs, matters_T))
    votes_T = _vote_bars(view)
    columns = "".join(
        f'<span class="static-column">{"" if view.matters is None else _matter_bar(matters_T[index], most)}'
        f'<span class="grid-token">{escape(token.strip() or "␣")}</span>{votes_T[index]}'
        + "".join(
            f'<span class="cell{"" if experts is None else f" x{experts[index] % MAX_COLOURS}"}'
            f'{" dropped" if dropped[index] else ""}{" changed" if changed[index] else ""}">'
            f"{'–' if experts is None else experts[index]}</span>"
            for experts, dropped, changed in routes
        )
        + "</span>"
        for index, token in enumerate(view.prediction.tokens)
    )
    key = f"From top to bottom: {names}. Struck through: dropped." + (" Framed: changed." if view.changed else "")
    if view.matters is not None:
        label = escape(view.matters.label)
        key += f' <s class="swatch helps"></s> without this token {label} is less likely'
        key += ' <s class="swatch harms"></s> more likely'
    if view.prediction.votes is not None:
        label = escape(view.prediction.label)
        key += (
            f' <s class="swatch helps"></s> below a word: its vote for {label} <s class="swatch harms"></s> against it'
        )
    return f'<p class="facts">{key}</p><div dir="auto">{columns}</div>'


def _vote_bars(view: View) -> list[str]:
    """A bar for each token's vote for the predicted class; blanks without votes."""
    strip = votes_strip(view.prediction)
    if strip is None:
        return [""] * len(view.prediction.tokens)
    name, votes = strip["classes"][0].values()
    most = max(abs(vote or 0.0) for vote in votes)
    return [strip_bar(vote, name, most, strip["digits"]) for vote in votes]


def _matter_bar(change: float, most: float) -> str:
    height = 0 if abs(change) < 0.0005 else max(round(20 * abs(change) / most), 1)
    bar = f'<i class="{"helps" if change < 0 else "harms"}" style="height:{height}px"></i>' if height else ""
    return f'<span class="grid-matter" title="without this token: {in_points(100 * change)} points">{bar}</span>'
