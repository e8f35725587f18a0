"""What draws a grid in a browser: its script and style sheet, for the page and for the widget.

Try it: len(script())
"""

from pathlib import Path

from switch_model.grid.palette import CELL_INK, palette_css

_HERE = Path(__file__).resolve().parent
# One scope: each may call what any of them declares. The last one begins.
_SCRIPTS = ("grid_bars.js", "grid_choice.js", "matrix_map.js", "routing_matrix.js", "routing_grid.js")
STYLE_SHEET = _HERE / "grid.css"
# What the script finds in its element.
TEMPLATE = '<p class="notice" role="status" hidden></p><div class="grid-root"></div>'


def script() -> str:
    """The body of a function of element, props, trigger and watch (see routing_grid.js)."""
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS)


def style() -> str:
    """The grid's style sheet with the experts' colours, for a page that has no other."""
    ink = f":root, :host {{ --cell-ink: {CELL_INK}; }}"
    return "\n".join((ink, palette_css(), STYLE_SHEET.read_text(encoding="utf-8")))
