"""What is on screen as one HTML file: opens offline, in any browser, long after the model is gone.

Try it: report_html(view, "AG News")
"""

from html import escape

from switch_model.plots import router_probabilities
from switch_model.routing import layer_title
from ui.cards import load_card, prediction_card, token_card
from ui.expert_panel import changes_in_words
from ui.palette import CELL_INK, MAX_COLOURS, palette_css
from ui.theme import STYLE_SHEET
from ui.view import View


def report_html(view: View, title: str) -> str:
    """The whole file, with the page's own looks."""
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
        picture = figure.to_html(full_html=False, include_plotlyjs="inline", config={"displayModeBar": False})
        parts += [
            f'<div class="card"><h2>Where each token went</h2>{_static_grid(view)}</div>',
            f'<div class="card">{token_card(prediction, view.token, view.layer)}</div>',
            *(f'<div class="card">{load_card(prediction, layer)}</div>' for layer in range(len(prediction.routing))),
            f'<div class="card"><h2>Router probabilities, {layer_title(record.name)}</h2>{picture}</div>',
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
body.saved .card { margin-top: 14px; }
.static-column { display: inline-flex; flex-direction: column; margin: 0 4px 12px 0; vertical-align: top; }
.static-column .cell { display: block; cursor: default; }
"""


def _changes(view: View) -> str:
    said = changes_in_words(view.changes, view.base.tokens)
    return f'<p class="facts">Changed: {escape(" · ".join(said))}.</p>' if said else ""


def _static_grid(view: View) -> str:
    """The grid without its script: a column per token, a cell per layer."""
    records = view.prediction.routing
    routes = [
        (
            record.expert[0].tolist(),
            record.dropped[0].tolist(),
            ((record.expert != base.expert) | (record.dropped != base.dropped))[0].tolist(),
        )
        for record, base in zip(records, view.base.routing, strict=True)
    ]
    names = " · ".join(layer_title(record.name) for record in records)
    columns = "".join(
        f'<span class="static-column"><span class="grid-token">{escape(token.strip() or "␣")}</span>'
        + "".join(
            f'<span class="cell x{experts[index] % MAX_COLOURS}{" dropped" if dropped[index] else ""}'
            f'{" changed" if changed[index] else ""}">{experts[index]}</span>'
            for experts, dropped, changed in routes
        )
        + "</span>"
        for index, token in enumerate(view.prediction.tokens)
    )
    key = f"From top to bottom: {names}. Struck through: dropped." + (" Framed: changed." if view.changed else "")
    return f'<p class="facts">{key}</p><div dir="auto">{columns}</div>'
