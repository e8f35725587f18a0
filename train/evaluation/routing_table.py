"""Routing of a text as lines for a terminal: a line per token, a column per sparse layer.

Try it: print(routing_table(Predictor.from_checkpoint("assets/models/ag_news")("Oil prices rose.")))
"""

from collections.abc import Sequence

from switch_model.attribution.direct import DirectAttribution
from switch_model.inference.classifier import Prediction
from switch_model.topk_routing import AnyRouting
from train.formatting import one_line

# Least width of a layer's column, and experts named for each prediction.
WIDTH, SHOWN_EXPERTS = 14, 3


def routing_table(prediction: Prediction) -> str:
    """`token_table`. If experts vote, also each token's vote for the predicted class, and below them the bias and the
    logit."""
    if prediction.votes is None:
        return token_table(prediction.tokens, prediction.routing)
    label = list(prediction.scores).index(prediction.label)
    votes = [f"{vote:+.4f}" for vote in prediction.votes[:, label].tolist()]
    for index in prediction.voters.dropped[0].nonzero().flatten().tolist():
        votes[index] = "none"
    *lines, legend = token_table(prediction.tokens, prediction.routing, votes).split("\n")
    width = 16 + (WIDTH + 1) * len(prediction.routing)
    sums = (("bias", float(prediction.bias[label])), ("logit", float(prediction.logits[label])))
    lines += [f"{name:{width}} {value:>+10.4f}" for name, value in sums]
    legend += (
        f"; vote: contribution of its expert of {prediction.voters.name} to the logit of "
        f"{one_line(prediction.label)}, which is the sum of all votes and the bias"
    )
    return "\n".join([*lines, legend])


def token_table(tokens: Sequence[str], records: Sequence[AnyRouting], votes: Sequence[str] | None = None) -> str:
    """A line per token with expert and gate in each sparse layer, in brackets if dropped, or with its experts and their
    weights, where there are several. The last line is a legend.

    Args:
        votes: one more column.
    """
    columns = [[record.name, *(_cell(record, index) for index in range(len(tokens)))] for record in records]
    widths = [max(WIDTH, *map(len, column)) for column in columns]
    lines = []
    for row in range(len(tokens) + 1):
        name = tokens[row - 1].strip()[:16] if row else "token"
        cells = [f"{column[row]:>{width}}" for column, width in zip(columns, widths, strict=True)]
        last = [] if votes is None else [f"{votes[row - 1] if row else 'vote':>10}"]
        lines.append(" ".join([f"{name:16}", *cells, *last]))
    if any(record.experts.shape[-1] > 1 for record in records):
        legend = "n 0.48: expert n has weight 0.48 for the token; the largest weight comes first"
    else:
        legend = "n 0.48: the token went to expert n, with router probability (gate) 0.48"
    if any(bool(record.dropped.any()) for record in records):
        legend += "; (n): the buffer of expert n was full, the token was dropped"
    return "\n".join([*lines, legend])


def writes_table(found: Sequence[DirectAttribution], tokens: Sequence[str]) -> str:
    """A line per prediction: its output, the logit, what all experts together write of it, and those that write most.
    The last line is a legend.

    Args:
        tokens: of the trace.
    """
    lines = [f"{'at':16} {'output':16} {'logit':>8} {'experts':>8}  most"]
    for one in found:
        at = "text" if one.token is None else tokens[one.token].strip()[:16]
        most = ", ".join(
            f"{term.layer} expert {term.expert} {term.values[0]:+.2f}" for term in one.experts[:SHOWN_EXPERTS]
        )
        written, output = sum(term.values[0] for term in one.experts), one_line(one.outputs[0]).strip()[:16]
        lines.append(f"{one_line(at):16} {output:16} {one.logits[0]:>+8.2f} {written:>+8.2f}  {most}")
    legend = "experts: what they add to the logit themselves, through the final norm with its scale held fixed"
    return "\n".join([*lines, legend])


def _cell(record: AnyRouting, index: int) -> str:
    if record.experts.shape[-1] == 1:
        expert, gate = int(record.expert[0, index]), float(record.gate[0, index])
        return f"{f'({expert})' if record.dropped[0, index] else expert} {gate:.2f}"
    pairs = zip(record.experts[0, index].tolist(), record.weights[0, index].tolist(), strict=True)
    if record.dropped[0, index]:
        return "-"
    return ", ".join(f"{expert} {weight:.2f}" for expert, weight in pairs if weight)
