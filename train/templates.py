"""Texts made from templates: the files beside the modules that fill them, HTML escaped by itself.

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
        undefined=StrictUndefined,  # A name misspelt in a template is an error, not a gap.
    )


def render(template: str, **values: Any) -> str:
    """A template of this package by its path, filled."""
    return templates_of("train").get_template(template).render(values)
