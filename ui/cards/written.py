"""The cards of a text that a model writes: the text on its way and whole, and what might have followed each token.

Pure functions; written.html escapes.
Try it: written_card(view)
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from markupsafe import Markup

from switch_model.routing import may_drop
from train.formatting import counted
from ui.look.html import Bar, bar, notice, part
from ui.views.view import View, WrittenView

_TEMPLATE = "cards/written.html"
# Bars of next tokens that a person still reads.
MAX_NEXT = 8
# Of what a text begins with, so many characters stand before what the model wrote: the rest is in the box beside it.
SHOWN_PROMPT = 160


def writing_card(prompt: str, text: str, words: str, before: str | None = None, writes_before: bool = False) -> Markup:
    """A text on its way.

    Args:
        before: the text that it is compared with; None = none.
        writes_before: that one is on its way, and `text` is whole.
    """
    return part(_TEMPLATE, "writing", _last_words(prompt), text, words, before, writes_before)


def written_card(view: WrittenView) -> Markup:
    """What the model made of the text; with changes, beside what it made of it before."""
    written, base = view.answer, view.base if view.changed else None
    whole = written.new_tokens >= view.decoding.max_new_tokens
    said = [
        f"{counted(written.new_tokens, 'token')} written",
        "end of sequence" if written.finished else "max tokens reached" if whole else "stopped",
        f"perplexity {written.perplexity:,.1f}",
        *drops_of(view),
    ]
    prompt = "" if written.source else _last_words(view.text)
    compared = base and (changed_words(written.text, base.text) if written.text != base.text else {})
    return part(_TEMPLATE, "written", answer_notice(view), prompt, written.text, " · ".join(said), compared)


def changed_words(now: str, before: str) -> dict[str, list[tuple[str, bool]]]:
    """Two texts as runs of words: (words, whether the other text lacks them in this place)."""
    words = [re.findall(r"\s*\S+|\s+$", text) for text in (now, before)]
    found: dict[str, list[tuple[str, bool]]] = {"now": [], "before": []}
    matcher = SequenceMatcher(None, *([word.strip() for word in text] for text in words), autojunk=False)
    for kind, start, end, start_before, end_before in matcher.get_opcodes():
        for name, text, first, last in (("now", words[0], start, end), ("before", words[1], start_before, end_before)):
            if first < last:
                found[name].append(("".join(text[first:last]), kind != "equal"))
    return found


def drops_of(view: View) -> list[str]:
    """How many tokens were dropped, where the model can drop any."""
    if not may_drop(view.records):
        return []
    drops = sum(int(record.dropped.sum()) for record in view.records)
    return [f"{counted(drops, 'drop')} in {counted(len(view.records), 'sparse layer')}"]


def _last_words(prompt: str) -> str:
    if len(prompt) <= SHOWN_PROMPT:
        return prompt
    end = prompt[-SHOWN_PROMPT:]
    return "… " + (end.split(None, 1)[1:] or [end])[0]


def answer_notice(view: View) -> Markup | str:
    """A sentence where the model read only a part of the text, or knew little of it."""
    said, read = [], view.traces[0]
    if view.answer.truncated:
        part = "end" if read.stack == "decoder" else "beginning"
        said.append(f"The text is longer than this model reads: only its {part} was read.")
    if read.tokens and 2 * sum(read.unknown) >= len(read.tokens):
        said.append("Most of the tokens are not in this model’s vocabulary: the answer is a guess.")
    return notice(" ".join(said), "status") if said else ""


def next_tokens(view: WrittenView) -> Markup | str:
    """The probabilities of the next token at a place of the decoder."""
    written, trace, token = view.answer, view.trace, view.token
    if trace.stack != "decoder":
        return ""
    following = trace.tokens[token + 1] if token + 1 < len(trace.tokens) else None
    chance = written.chances[token]
    rows = _next_rows(written.next_tokens[token][:MAX_NEXT], following, chance)
    said = "The text ends here." if following is None else f"What followed had a probability of {chance:.2f}."
    return part(_TEMPLATE, "next_tokens", rows, said)


def _next_rows(candidates: Sequence[tuple[str, float]], following: str | None, chance: float | None) -> list[Bar]:
    rows, found = [], False
    for name, share in candidates:
        # Names can be shared (a cut character, say): the probability tells them apart.
        own = not found and following is not None and chance is not None and abs(share - chance) < 1e-6
        found = found or own
        rows.append(bar(_named(name), share, f"{share:.2f}", top=own))
    if following is not None and not found and chance is not None:
        rows.append(bar(_named(following), chance, f"{chance:.2f}", top=True))
    return rows


def _named(name: str) -> str:
    """A token's name with its white space seen, and told apart where it goes on with a word."""
    if not name.strip():
        return name.replace("\n", "↵").replace(" ", "␣") or "␣"
    return f"…{name}" if name[0].isalnum() else name.strip()
