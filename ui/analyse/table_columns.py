"""Which columns of a visitor's own table are read, and in words.

Try it: read_from_columns("my.csv", None, None)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.data.source import DataSource


def columns_of_table(path: str) -> tuple[list[str], str | None, str | None, bool]:
    """Of a table: its columns, those of texts and of classes, and whether content told them where names leave a
    doubt."""
    from train.data.columns import choose_columns
    from train.data.errors import DataError, UnclearColumns
    from train.data.loading import columns_of
    from train.data.source import DataSource
    from train.preflight.task_suggestion import columns_by_content, likely_columns

    source, names = DataSource(path), []
    try:
        names = columns_of(source)
        found = choose_columns(source, names)
        return names, ",".join(found.texts), found.label, False
    except UnclearColumns:
        found = columns_by_content(source) or likely_columns(source) or (_only_texts(source, names), None)
        return names, *found, True
    except DataError:  # Reading the table says what is wrong.
        return names, None, None, False


def _only_texts(source: "DataSource", names: list[str]) -> str | None:
    """The columns of texts of a table without classes, if the names tell them."""
    from train.data.columns import choose_columns
    from train.data.errors import DataError

    try:
        return ",".join(choose_columns(source, names, labelled=False).texts)
    except DataError:
        return None


def read_from_columns(path: str, texts: str | None, label: str | None) -> str:
    """Which columns of a table were read, in a sentence; a space behind it."""
    _, own_texts, own_label, by_content = columns_of_table(path)
    texts, label = (texts, label or None) if texts else (own_texts, own_label)
    guessed = by_content and (texts, label) == (own_texts, own_label)
    if texts is None:
        return ""
    return f"Texts: {texts}; classes: {label or 'none'}{', chosen by content' if guessed else ''}. "
