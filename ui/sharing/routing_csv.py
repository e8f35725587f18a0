"""The routes of a view as a table: a row per token and sparse layer.

Try it: routing_csv(view)
"""

import csv
import io
from collections.abc import Iterator
from typing import Any

from ui.views.view import View

_OF_CLASS = ("position", "token", "layer", "expert", "gate", "slot", "capacity", "dropped")
_OF_TEXT = ("stack", "position", "token", "written", "layer", "expert", "gate", "slot", "dropped")


def routing_csv(view: View) -> str:
    """Expert, gate, slot and whether it was dropped; of a class also the capacity, of a text the stack and whether the
    model wrote the token.

    Where a classifier reads its experts alone, a column "vote(class)" for each class follows: filled in the rows of the
    layer that votes, for tokens that were not dropped. A column and the classifier's bias add up to the class's logit.
    """
    text = io.StringIO(newline="")
    columns = _OF_CLASS if view.classifies else _OF_TEXT
    names = [f"vote({label})" for label in view.answer.scores] if _has_votes(view) else []
    writer = csv.DictWriter(text, [*columns, *names], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(_rows(view))
    return text.getvalue()


def _has_votes(view: View) -> bool:
    return view.classifies and view.answer.votes is not None


def _rows(view: View) -> Iterator[dict[str, Any]]:
    voters = view.answer.voters if _has_votes(view) else None
    for trace in view.traces:
        for record in trace.routing:
            columns = (record.expert[0], record.gate[0], record.slot[0], record.dropped[0])
            for index, values in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
                expert, gate, slot, dropped = values
                row = {"stack": trace.stack, "position": index, "token": trace.tokens[index], "layer": record.name}
                row |= {"written": int(index >= trace.written), "expert": expert, "gate": f"{gate:.6f}", "slot": slot}
                row |= {"capacity": int(record.capacity), "dropped": int(dropped)}
                if record is voters and not dropped:
                    votes = zip(view.answer.scores, view.answer.votes[index].tolist(), strict=True)
                    row |= {f"vote({label})": f"{vote:.6f}" for label, vote in votes}
                yield row
