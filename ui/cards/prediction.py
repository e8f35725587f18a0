"""The small cards around the grid as HTML. Pure functions; every text that is not ours goes through html.escape.

Try it: prediction_card(prediction, true_label="Business", milliseconds=9.0)
"""

from html import escape

import torch

from switch_model import Prediction, Routing
from switch_model.analysis.layer_names import layer_label, layer_title
from switch_model.inference.traces import TokenTrace
from switch_model.routing import UNLIMITED, load_balancing_loss
from ui.look.palette import MAX_COLOURS

# Bars in a list that a person still reads; the rest is summed up in one line.
MAX_CLASSES, MAX_EXPERTS = 12, 6
# Above this many experts, bars are too thin for numbers.
MAX_NUMBERED = 16
# Shares below this are no segment of their own.
MIN_SEGMENT = 0.015

HOW_TO_READ = """
<h2>How to read this</h2>
<dl class="terms">
<dt>expert</dt><dd>One of several small networks in a layer. The router sends each token to exactly one.</dd>
<dt>gate</dt><dd>The router's probability for that expert. The expert's output is multiplied by it.</dd>
<dt>capacity</dt><dd>How many tokens of one text an expert takes in: first come, first served.</dd>
<dt>dropped</dt><dd>The expert was full. No expert of this layer reads the token: only what passes by them goes on.</dd>
</dl>
<p class="note">A picture does not prove what an expert specialises in. One text shows where its tokens went, not why;
a name such as “the sports expert” needs counts over many texts and a test of what changes without it.</p>
"""


def message_card(title: str, message: str) -> str:
    """A card that says why there is nothing to show, and what to do."""
    return f'<h2>{escape(title)}</h2><p class="message" role="status">{escape(message)}</p>'


def empty_card(title: str) -> str:
    """A card that waits for a text."""
    return f'<h2>{escape(title)}</h2><p class="facts">Appears once a text is routed.</p>'


def prediction_card(
    prediction: Prediction, true_label: str | None, milliseconds: float | None, base: Prediction | None = None
) -> str:
    """All classes, the predicted one first, and below them the facts of this run.

    Args:
        milliseconds: what the pass took; None = there was none.
        base: the prediction before the routing was changed: shown beside, with what the change made of it.
    """
    scores = sorted(prediction.scores.items(), key=lambda item: -item[1])
    rows = [
        bar(name, score, _percent(score), top=not index, before=base and base.scores[name])
        for index, (name, score) in enumerate(scores[:MAX_CLASSES])
    ]
    if len(scores) > MAX_CLASSES:
        rest = sum(score for _, score in scores[MAX_CLASSES:])
        rows.append(bar(f"{len(scores) - MAX_CLASSES} more", rest, _percent(rest)))
    drops = int(sum(record.dropped.sum() for record in prediction.routing))
    tokens = len(prediction.tokens)
    layers = len(prediction.routing)
    facts = [
        f"{tokens} token{'s' if tokens != 1 else ''}",
        f"{drops} drop{'s' if drops != 1 else ''} in {layers} layer{'s' if layers != 1 else ''}",
        *([f"{milliseconds:.0f} ms"] if milliseconds is not None else []),
    ]
    if true_label:
        mark = ("✓", "right") if true_label == prediction.label else ("✗", "wrong")
        if true_label not in prediction.scores:
            mark = ("(not a class of this model)", "")
        facts.insert(0, f'true label: {escape(true_label)} <b class="{mark[1]}">{mark[0]}</b>')
    if base is None:
        return f'<h2>Prediction</h2>{"".join(rows)}<p class="facts">{" · ".join(facts)}</p>'
    verdict = f"<b>{escape(base.label)}</b> as before"
    if prediction.label != base.label:
        verdict = f'<b>{escape(base.label)}</b> → <b class="wrong">{escape(prediction.label)}</b>'
    moved = sum(
        int(((now.expert != was.expert) | (now.dropped != was.dropped)).sum())
        for now, was in zip(prediction.routing, base.routing, strict=True)
    )
    facts.insert(0, f"{moved} of {tokens * layers} routes changed")
    return (
        f'<h2>Prediction with your changes: {verdict}</h2><div class="changed-bars">{"".join(rows)}</div>'
        f'<p class="facts"><s class="tick"></s> before · {" · ".join(facts)}</p>'
    )


def reading_notice(prediction: Prediction) -> str:
    """Sentences where the model read only the beginning of the text, or knew little of it; else nothing."""
    said, tokens, unknown = [], len(prediction.tokens), sum(prediction.unknown)
    if prediction.truncated:
        end = max(end for _, end in prediction.offsets)
        said.append(
            f"The text is longer than this model reads: only its first {tokens} tokens ({end:,} characters) were read."
        )
    if 2 * unknown >= tokens:
        share = "None" if unknown == tokens else f"Only {tokens - unknown} of {tokens}"
        said.append(f"{share} of the tokens are in this model's vocabulary: the class is a guess.")
    return f'<p class="notice" role="status">{" ".join(said)}</p>' if said else ""


def token_card(prediction: Prediction | TokenTrace, token: int, layer: int, both: bool = False) -> str:
    """One token: its likeliest experts in the chosen layer, then its probabilities in every layer."""
    record = prediction.routing[layer]
    probs_LE = torch.cat([record.probs[:, token] for record in prediction.routing]).tolist()
    expert, slot, capacity = (
        int(values) for values in (record.expert[0, token], record.slot[0, token], record.capacity)
    )
    probs_E = probs_LE[layer]
    layers = "".join(
        _stacked(record, probs_LE[index], token, chosen=index == layer)
        for index, record in enumerate(prediction.routing)
    )
    text = escape(prediction.tokens[token].strip() or "␣")
    title = f'<h2><bdi class="quoted">{text}</bdi> in {layer_title(record.name, both)}</h2>'
    everywhere = f'<h3>in every layer</h3><div class="stacks">{layers}</div>'
    if _none_on(record, token):
        return f'{title}<p class="facts">Every expert of this layer is off: none reads the token.</p>{everywhere}'
    order = sorted(range(len(probs_E)), key=lambda index: (index != expert, -probs_E[index]))
    rows = [
        bar(f"expert {index}", probs_E[index], f"{probs_E[index]:.2f}", top=index == expert, colour=index)
        for index in order[:MAX_EXPERTS]
    ]
    if len(order) > MAX_EXPERTS:
        rest = sum(probs_E[index] for index in order[MAX_EXPERTS:])
        rows.append(bar(f"{len(order) - MAX_EXPERTS} more", rest, f"{rest:.2f}"))
    return f'{title}{"".join(rows)}<p class="facts">{_place(expert, slot, capacity)}</p>{everywhere}'


def load_card(prediction: Prediction | TokenTrace, layer: int, both: bool = False) -> str:
    """How many tokens chose each expert of one layer, against an even share and the capacity."""
    record = prediction.routing[layer]
    counts, tokens = record.choices.tolist(), len(prediction.tokens)
    experts, capacity = record.num_experts, int(record.capacity)
    even, busiest = tokens / experts, max(counts)
    limited = capacity != UNLIMITED
    # A capacity far above every bar would flatten them all: then words say it.
    in_sight = limited and capacity <= 1.5 * max(busiest, even)
    top = max(busiest, even, capacity if in_sight else 0) * 1.18  # Room for the number above the tallest bar.
    bars = []
    for expert, count in enumerate(counts):
        over = max(count - capacity, 0)
        bars.append(
            f'<div class="load-bar x{expert % MAX_COLOURS}" title="expert {expert}: {count} of {tokens} tokens'
            f'{f", {over} dropped" if over else ""}">'
            f"<i>{count if experts <= MAX_NUMBERED else ''}</i>"
            f'<u style="height:{100 * over / top:.1f}%" class="over"></u>'
            f'<u style="height:{100 * (count - over) / top:.1f}%"></u></div>'
        )
    lines = f'<hr class="even" style="bottom:{100 * even / top:.1f}%">'
    if in_sight:
        lines += f'<hr class="capacity" style="bottom:{100 * capacity / top:.1f}%">'
    names = "".join(f"<span>{expert}</span>" for expert in range(experts)) if experts <= MAX_NUMBERED else ""
    dropped = int(record.dropped.sum())
    key = [f'<span><s class="line even"></s>even share {even:.1f}</span>']
    if limited:
        key.append(f"<span>{'<s class=line></s>' if in_sight else ''}capacity {capacity}</span>")
        key.append(f"<span>{'<s class=stripes></s>' if dropped else ''}{dropped} dropped</span>")
    else:
        key.append("<span>no capacity limit</span>")
    balance = float(load_balancing_loss(record))
    return (
        f"<h2>Load per expert, {layer_title(record.name, both)}</h2>"
        f'<div class="load{"" if experts <= MAX_NUMBERED else " thin"}" role="img" '
        f'aria-label="{_load_in_words(counts, capacity)}">{"".join(bars)}{lines}</div>'
        f'<div class="load-names" aria-hidden="true">{names}</div><p class="facts key">{"".join(key)}</p>'
        f'<p class="facts">balance loss {balance:.2f} (1 = even, {experts} = all on one expert)</p>'
    )


def bar(
    name: str, share: float, value: str, top: bool = False, colour: int | None = None, before: float | None = None
) -> str:
    """One row: a name, a bar of that share, its value in words; with `before`, where it ended then and the change."""
    tint = "" if colour is None else f" x{colour % MAX_COLOURS}"
    tick = change = ""
    if before is not None:
        tick = f'<b style="left:{100 * before:.1f}%" title="before: {_percent(before)}"></b>'
        points = round(100 * (share - before), 1)
        sign = "+" if points > 0 else "−" if points < 0 else "±"
        change = f"<span>{_percent(before)}</span><span>{sign}{abs(points):.1f}</span>"
    return (
        f'<div class="bar{" top" if top else ""}{tint}"><span title="{escape(name)}">{escape(name)}</span>'
        f'<i><u style="width:{100 * share:.1f}%"></u>{tick}</i><span>{value}</span>{change}</div>'
    )


def _stacked(record: Routing, probs_E: list[float], token: int, chosen: bool) -> str:
    expert, off = int(record.expert[0, token]), _none_on(record, token)
    dropped = bool(record.dropped[0, token]) and not off
    # Slivers that nobody could see or hover become one grey rest.
    parts = "".join(
        f'<u class="x{index % MAX_COLOURS}{" own" if index == expert else ""}" style="flex-grow:{prob:.4f}" '
        f'title="expert {index}: {prob:.2f}">{index if prob >= 0.12 else ""}</u>'
        for index, prob in sorted(enumerate(probs_E), key=lambda item: -item[1])
        if prob >= MIN_SEGMENT
    )
    rest = sum(prob for prob in probs_E if prob < MIN_SEGMENT)
    if rest >= MIN_SEGMENT:
        parts += f'<u style="flex-grow:{rest:.4f}" title="all others: {rest:.2f}"></u>'
    chosen_one = "every expert is off" if off else f"expert {expert}, probability {probs_E[expert]:.2f}"
    words = f"{layer_title(record.name)}: {chosen_one}"
    return (
        f'<div class="stack{" chosen" if chosen else ""}" role="img" aria-label="{words}">'
        f"<span>{layer_label(record.name)}</span><i>{parts}</i>"
        f'<span class="{"struck" if dropped else ""}">{"–" if off else f"{probs_E[expert]:.2f}"}</span></div>'
    )


def _none_on(record: Routing, token: int) -> bool:
    """Whether all experts of the layer are off."""
    return not bool(record.chosen_logit[0, token].isfinite())


def _place(expert: int, slot: int, capacity: int) -> str:
    if capacity == UNLIMITED:
        return f"expert {expert}, slot {slot + 1}, no limit"
    if slot >= capacity:
        return f"expert {expert} was full: place {slot + 1}, {capacity} slots. Dropped: no expert reads it."
    return f"expert {expert}, slot {slot + 1} of {capacity}"


def _load_in_words(counts: list[int], capacity: int) -> str:
    shown = ", ".join(f"expert {expert}: {count}" for expert, count in enumerate(counts) if count)
    return f"Tokens per expert: {shown}. " + ("No limit." if capacity == UNLIMITED else f"Capacity {capacity}.")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
