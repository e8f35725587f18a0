"""Names of classes: which look alike, which are words for a missing value, which no checkpoint can hold.

Try it: look("Good\\u200b") == look("good"), is_word_for_missing("NaN")
"""

import unicodedata

from switch_model.checkpoint import check_labels
from train.data.errors import DataError

# What programs write where there is nothing: pandas, R, databases, spreadsheets, people.
WORDS_FOR_MISSING = {
    "nan", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "null", "<null>", "\\n", "none", "nil", "nat", "-", "--", "–",
    "?", ".", "#value!", "#ref!", "undefined",
}  # fmt: skip
# Letters of other scripts, dashes and quotes that look like those of a keyboard.
_TWINS = str.maketrans(
    "авекмнорстухіѕјԁԛԝһӏ" "αβεικνορτυχ" "‐‑‒–—−" "‘’‚`´" "“”„«»",
    "abekmhopctyxisjdqwhl" "abeiknoptux" "------" "'''''" '"""""',
)  # fmt: skip


def is_word_for_missing(name: str) -> bool:
    return name.strip().casefold() in WORDS_FOR_MISSING


def look(name: str) -> str:
    """The same for names that a reader takes for one: case, width, composition, unseen and twin characters aside."""
    plain = unicodedata.normalize("NFKC", name).casefold().translate(_TWINS)
    seen = "".join(character for character in plain if unicodedata.category(character) not in ("Cf", "Cc", "Mn"))
    return " ".join(seen.split())


def spelled(name: str) -> str:
    """A name with its unusual characters by number, where that is what tells it from another: goo\\u200bd (U+200B)."""
    odd = dict.fromkeys(character for character in name if not 0x20 <= ord(character) < 0x7F)
    codes = ", ".join(f"U+{ord(character):04X}" for character in list(odd)[:3])
    return f"{name} ({codes})" if odd else name


def check_names(names: list[str], column: str, dataset: str) -> None:
    """Raise DataError for class names with which no checkpoint could be opened again."""
    try:
        check_labels(names)
    except ValueError as error:
        raise DataError(
            f"The column '{column}' of {dataset} can't be learned as classes: {error} Is it the column of classes? "
            "Name another one with --label_column, or shorten the names."
        ) from error
