"""Numbers as people see them, and what the columns of tables mean."""

from pathlib import Path

import pytest

from train.definitions import DEFINITIONS, header
from train.formatting import percent, signed


@pytest.mark.parametrize(
    ("share", "said"),
    {
        0: "0 %", 1: "100 %", 0.9194: "91.9 %", 0.5: "50.0 %", 0.0005: "0.1 %", 0.0004: "< 0.1 %", 0.9995: "> 99.9 %",
        0.9994: "99.9 %",
    }.items(),
)  # fmt: skip
def test_a_share_has_one_decimal_and_only_nothing_and_all_are_said_to_be(share, said):
    assert percent(share) == said.replace(" ", "\u00a0")


def test_a_shown_number_has_one_minus_sign():
    assert (signed(-1.26, 1), signed(0.04, 1), signed(2, 0)) == ("−1.3", "±0.0", "+2")


def test_a_column_means_what_the_docs_say():
    docs = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
    assert not [name for name, meaning in DEFINITIONS.items() if f"| {name} | {meaning} |" not in docs]
    assert 'aria-describedby="means-expert"' in header("expert 3") and header("a<b") == "a&lt;b"
