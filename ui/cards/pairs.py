"""Which experts of a layer are chosen together, for models with several experts for each token, in words.

Try it: pairs_card(view)
"""

from markupsafe import Markup

from switch_model.analysis.coactivation import coactivation
from switch_model.grid.layer_names import layer_title
from train.formatting import signed
from ui.look.html import heading, quiet
from ui.views.view import View

# Pairs that are named.
NAMED = 3


def pairs_card(view: View) -> Markup:
    """The pairs of the layer in view that are chosen together most often, compared with chance."""
    record = view.record
    found = coactivation(record)
    named = [pair for pair in found.strongest(NAMED) if found.lift[pair] > 0]
    said = ", ".join(
        f"{one} and {other} ({int(found.counts[one, other])} tokens, {float(found.expected[one, other]):.1f} by "
        f"chance, lift {signed(float(found.lift[one, other]), 1)})"
        for one, other in named
    )
    said = f"Most above chance: {said}. " if named else "No pair is chosen more often than by chance. "
    said += (
        "A square counts the tokens that chose both experts. By chance: in proportion to the tokens of each. Lift: "
        "log2 of one over the other; of few tokens it is mostly noise."
    )
    return heading(f"Pairs of experts, {layer_title(record.name, view.two_stacks)}") + quiet(said)
