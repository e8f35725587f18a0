"""The routing grid as a widget of a notebook: predictor("Oil prices rose.").show()

Runs in Jupyter, VS Code and Colab with anywidget, around the very script of the page.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from switch_model.grid.drawing import TEMPLATE, script, style
from switch_model.grid.plain import Traced, result_grid
from switch_model.token_trace import TokenTrace


def shown(result: Traced, before: Traced | None = None) -> dict[str, Any]:
    """What the script draws of a result.

    Args:
        before: the result for the same text before its routing was changed: other routes are marked.
    """
    return result_grid(result, _first_routed(result.traces), before)


def _first_routed(traces: Sequence[TokenTrace]) -> tuple[int, int]:
    """The first token of the first stack with a sparse layer; the first of all where there is none."""
    start = 0
    for trace in traces:
        if trace.routing:
            return start, 0
        start += len(trace.tokens)
    return 0, 0


def show(result: Traced, before: Traced | None = None) -> Any:
    """The widget. Its `value` is what is drawn; `looked` the place ({"token": …, "layer": …}) that was clicked.

    Raises:
        ImportError: without anywidget.
    """
    return _widget_class()(value=shown(result, before))


def module() -> str:
    """The widget's JavaScript, whole."""
    parts = {"STYLE": json.dumps(style()), "TEMPLATE": json.dumps(TEMPLATE)}
    constants = "\n".join(f"const {name} = {text};" for name, text in parts.items())
    own = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    return f"const draw = (element, props, trigger, watch) => {{\n{script()}\n}};\n{constants}\n{own}"


@functools.cache
def _widget_class() -> type:
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise ImportError("The grid in a notebook needs anywidget: pip install anywidget") from error

    class RoutingGrid(anywidget.AnyWidget):
        _esm = module()
        value = traitlets.Dict().tag(sync=True)
        looked = traitlets.Dict().tag(sync=True)

    return RoutingGrid
