"""Numbers as people see them."""

import pytest

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
