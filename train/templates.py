"""Jinja2 templates, stored beside the modules that use them; HTML is escaped automatically.

Try it: render("release/model_card.md.jinja", …)
"""

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


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
    """Render a template of this package, given by its path."""
    return templates_of("train").get_template(template).render(values)
