"""Jinja2 templates, stored beside the modules that use them; HTML is escaped automatically, except for Markup.

Try it: render("release/model_card.md.jinja", …)
"""

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup


@functools.lru_cache
def templates_of(package: str) -> Environment:
    """The templates of a package, by their paths in it."""
    return Environment(
        loader=PackageLoader(package, ""),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,  # A misspelt name is an error, not an empty string.
    )


def render(template: str, **values: Any) -> str:
    """Render a template of this package, given by its path; an .html file becomes Markup, which no template escapes."""
    text = templates_of("train").get_template(template).render(values)
    return Markup(text) if template.endswith(".html") else text


def plot_html(figure: Any) -> Markup:
    """A plotly figure as HTML, for a page with `plotly_script`."""
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False}))


def plotly_script() -> Markup:
    """Plotly's own code, a few MB, so that a page opens offline."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
