"""The cards of a model that answers with words, as HTML: its text, its blanks, what might have followed a token.

Pure functions; every text that is not ours goes through html.escape.
Try it: answer_card(view, milliseconds=90.0)
"""

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from time import perf_counter
from typing import Any

from switch_model import Filling, Generation, Interventions, SwitchConfig
from switch_model.analysis.layer_names import layer_label, layer_title
from ui.cards.prediction import bar, load_card, message_card, token_card
from ui.catalog.kinds import FILLER
from ui.catalog.models import LoadedModel
from ui.components.expert_panel import changes_in_words, panel_value
from ui.components.routing_grid import bands_value
from ui.look.palette import MAX_COLOURS
from ui.views.output_view import PLAIN, Output, OutputView, kept_changes
from ui.views.view import View

# Bars of next tokens, and of what fits a blank, that a person still reads.
MAX_NEXT, MAX_CANDIDATES = 8, 5
# Of what a text begins with, so many characters stand before what the model wrote: the rest is in the box beside it.
SHOWN_PROMPT = 160
_READS, _WRITES = "Encoder: what it reads", "Decoder: what it writes"
_GOES_ON = "Decoder: the beginning, and what the model wrote"

Shown = tuple[OutputView, str, str, dict[str, Any] | None, dict[str, Any] | None, str, str]


def shown_output(view: OutputView, config: SwitchConfig | None, milliseconds: float | None, serial: int = 0) -> Shown:
    """(view, answer card, notice, grid, expert panel, token card, load card); `config` None = the view was saved."""
    return (
        view,
        answer_card(view, milliseconds),
        output_notice(view),
        grid_of(view),
        panel_of(view, config, serial) if config else {"said": saved_in_words(view)},
        *closer_cards(view),
    )


def answered(loaded: LoadedModel, model: str, text: str, view: View | OutputView | None) -> Shown:
    """A text answered at once, without being seen on its way. Raises ValueError when it can't be."""
    start = perf_counter()
    decoding = view.decoding if isinstance(view, OutputView) else PLAIN
    shown = OutputView.of(loaded, model, text, decoding, kept_changes(view, model))
    return shown_output(shown, loaded.config, 1000 * (perf_counter() - start))


# -- the answer -------------------------------------------------------------------------------------------------------


def writing_card(prompt: str, text: str, words: str, before: str | None = None) -> str:
    """A text on its way; with `before`, the one that it is then compared with."""
    facts = f'<p class="facts" role="status">{escape(words)}</p>'
    if before is None:
        return f"<h2>The model writes</h2>{_coming(prompt, text)}{facts}"
    shown = f'<p class="answer-text" dir="auto">{_prompt(prompt)}{escape(text)}</p>'
    was = _coming(prompt, before)
    return f"<h2>The model’s text with your changes</h2>{shown}<h3>before</h3>{was}{facts}"


def answer_card(view: OutputView, milliseconds: float | None) -> str:
    """What the model made of the text; with changes, beside what it made of it before."""
    output, base = view.output, view.base if view.changed else None
    if isinstance(output, Filling):
        return _blanks_card(output, base, _facts(view, milliseconds))
    prompt = "" if output.source else view.text
    now = f'<p class="answer-text" dir="auto">{_passage(prompt, output.text)}</p>'
    facts = f'<p class="facts">{" · ".join(_facts(view, milliseconds))}</p>'
    if base is None:
        return f"<h2>The model’s text</h2>{now}{facts}"
    if base.text == output.text:
        return f"<h2>The model’s text with your changes: the same as before</h2>{now}{facts}"
    was = f'<p class="answer-text" dir="auto">{_passage(prompt, base.text)}</p>'
    return f"<h2>The model’s text with your changes</h2>{now}{facts}<h3>before</h3>{was}"


def _coming(prompt: str, text: str) -> str:
    """A text to which more is added: however long it grows, its end is what is seen."""
    written = f'{_prompt(prompt)}{escape(text)}<i class="caret"></i>'
    return f'<div class="answer-text coming"><p dir="auto">{written}</p></div>'


def _passage(prompt: str, text: str) -> str:
    return _prompt(prompt) + (escape(text) if text.strip() else '<span class="prompt">(nothing but an end)</span>')


def _prompt(prompt: str) -> str:
    return f'<span class="prompt">{escape(_last_words(prompt))}</span>' if prompt else ""


def _last_words(prompt: str) -> str:
    if len(prompt) <= SHOWN_PROMPT:
        return prompt
    end = prompt[-SHOWN_PROMPT:]
    return "… " + (end.split(None, 1)[1:] or [end])[0]


def _facts(view: OutputView, milliseconds: float | None) -> list[str]:
    output = view.output
    facts = []
    if isinstance(output, Generation):
        count = output.new_tokens
        facts.append(f"{count} token{'s' if count != 1 else ''} written")
        whole = count >= view.decoding.max_new_tokens
        facts.append("ended by the model" if output.finished else "cut at its length" if whole else "cut short")
        facts.append(f"perplexity {output.perplexity:,.1f}")
    drops = sum(int(record.dropped.sum()) for record in output.routing)
    layers = len(output.routing)
    facts.append(f"{drops} drop{'s' if drops != 1 else ''} in {layers} sparse layer{'s' if layers != 1 else ''}")
    return facts + ([f"{milliseconds:,.0f} ms"] if milliseconds is not None else [])


def _blanks_card(output: Filling, base: Filling | None, facts: list[str]) -> str:
    parts = []
    for number, blank in enumerate(output.blanks):
        before = dict(base.blanks[number].candidates) if base else {}
        rows = [
            bar(
                name or "␣",
                share,
                f"{100 * share:.1f} %",
                top=not place,
                before=before.get(name, 0.0) if base else None,
            )
            for place, (name, share) in enumerate(blank.candidates[:MAX_CANDIDATES])
        ]
        title = f"<h3>blank {number + 1}</h3>" if len(output.blanks) > 1 else ""
        parts.append(title + "".join(rows))
    head = FILLER.answers if base is None else f"{FILLER.answers} with your changes"
    was = ""
    if base is not None:
        facts = ['<s class="tick"></s> before', *facts]
        was = "<p class=facts>the same words as before</p>"
        if base.text != output.text:
            was = f'<h3>before</h3><p class="answer-text" dir="auto">{escape(base.text)}</p>'
    bars = f'<div class="{"changed-bars" if base else ""}">{"".join(parts)}</div>'
    text = f'<p class="answer-text" dir="auto">{escape(output.text)}</p>'
    return f'<h2>{head}</h2>{text}{was}{bars}<p class="facts">{" · ".join(facts)}</p>'


def output_notice(view: OutputView) -> str:
    """A sentence where the model read only a part of the text, knew little of it, or the view was saved."""
    said, band = [], view.output.bands[0]
    if view.saved_from:
        said.append(saved_in_words(view))
    if view.output.truncated:
        part = "end" if band.stack == "decoder" else "beginning"
        said.append(f"The text is longer than this model reads: only its {part} was read.")
    if band.tokens and 2 * sum(band.unknown) >= len(band.tokens):
        said.append("Most of the tokens are not in this model’s vocabulary: the answer is a guess.")
    return f'<p class="notice" role="status">{escape(" ".join(said))}</p>' if said else ""


def saved_in_words(view: OutputView) -> str:
    """Where a saved view comes from, and what was changed in it."""
    said = f"This view of {view.saved_from} was saved: it shows what the model did then. "
    if changes := words_of_changes(view):
        said += f"Changed: {' · '.join(changes)}. "
    return said + "Start a text to go on with a model."


# -- the routing ------------------------------------------------------------------------------------------------------


def titles_of(output: Output) -> list[str]:
    """A title for each band; none where a text was only read."""
    if isinstance(output, Filling):
        return [""]
    return [_GOES_ON] if output.source is None else [_READS, _WRITES]


def grid_of(view: OutputView) -> dict[str, Any] | None:
    """The grid: one band per stack."""
    bands = list(zip(titles_of(view.output), view.output.bands, view.base.bands, strict=True))
    return bands_value(bands, view.place, view.changed)


def panel_of(view: OutputView, config: SwitchConfig, serial: int) -> dict[str, Any]:
    """The expert panel; without a capacity where nothing is ever dropped, and without classes to matter."""
    value = panel_value(view, config, serial, words_of_changes(view))
    both = len(view.output.bands) > 1
    for layer, record in zip(value["layers"], view.records, strict=True):
        layer |= {"label": layer_label(record.name, both), "title": layer_title(record.name, both)}
    if view.output.bands[0].stack == "decoder" or not view.output.bands[0].routing:
        value["stops"] = []
    elif both:
        value["capacity_note"] = "Acts on the encoder: the decoder always has room for every token."
    return value | {"classes": False, "writes": isinstance(view.output, Generation)}


def words_of_changes(view: OutputView) -> list[str]:
    """A phrase for each change; a token that is forced goes by the name that it has now."""
    said, changes, both = [], view.changes, len(view.output.bands) > 1
    for band in view.output.bands:
        prefix = f"{band.stack}."
        ablate = {place for place in changes.ablate if place[0].startswith(prefix)}
        force = {place: expert for place, expert in changes.force.items() if place[0].startswith(prefix)}
        most = max((token for _, token in force), default=-1)
        names = [*band.tokens, *(f"token {index}" for index in range(len(band.tokens), most + 1))]
        said += changes_in_words(Interventions(ablate, force), names, band.routing, both)
    rest = changes_in_words(replace(changes, ablate=frozenset(), force={}), [], [])
    return said + [f"{words} in the encoder" if both else words for words in rest]


def closer_cards(view: OutputView) -> tuple[str, str]:
    """(token card with what might have followed, load card)."""
    band, both = view.prediction, len(view.output.bands) > 1
    if not band.routing:
        message = "This stack has no sparse layer: every token takes the same path."
        return message_card("One token", message) + followers(view), message_card("Load per expert", message)
    token = token_card(band, view.token, view.layer, both) + followers(view)
    return token, load_card(band, view.layer, both)


def followers(view: OutputView) -> str:
    """The probabilities of the next token at a place of the decoder, or of what fits a blank."""
    output, band, token = view.output, view.prediction, view.token
    if isinstance(output, Filling):
        for blank in output.blanks:
            if blank.token == token:
                return "<h3>what fits here</h3>" + "".join(
                    bar(name or "␣", share, f"{share:.2f}") for name, share in blank.candidates[:MAX_NEXT]
                )
        return ""
    if band.stack != "decoder":
        return ""
    following = band.tokens[token + 1] if token + 1 < len(band.tokens) else None
    chance, rows = (
        output.chances[token],
        _next_rows(output.next_tokens[token][:MAX_NEXT], following, output.chances[token]),
    )
    said = "The text ends here." if following is None else f"What followed had a probability of {chance:.2f}."
    return f'<h3>what might follow</h3>{rows}<p class="facts">{said}</p>'


def _next_rows(candidates: Sequence[tuple[str, float]], following: str | None, chance: float | None) -> str:
    rows, found = [], False
    for name, share in candidates:
        # Names can be shared (a cut character, say): the probability tells them apart.
        own = not found and following is not None and chance is not None and abs(share - chance) < 1e-6
        found = found or own
        rows.append(bar(_visible(name), share, f"{share:.2f}", top=own))
    if following is not None and not found and chance is not None:
        rows.append(bar(_visible(following), chance, f"{chance:.2f}", top=True))
    return "".join(rows)


def _visible(name: str) -> str:
    """A token's name with its white space seen, and told apart where it goes on with a word."""
    if not name.strip():
        return name.replace("\n", "↵").replace(" ", "␣") or "␣"
    return f"…{name}" if name[0].isalnum() else name.strip()


def force_card(view: OutputView) -> str:
    """The experts of the chosen layer for the chosen token; a click sends it there."""
    band = view.prediction
    if not band.routing or not view.model:
        said = "A saved view can’t be asked." if not view.model else "Appears with a model that has a sparse layer."
        return f'<h2>Send this token elsewhere</h2><p class="facts">{said}</p>'
    record = band.routing[view.layer]
    probs, own = record.probs[0, view.token].tolist(), int(record.expert[0, view.token])
    off = {expert for layer, expert in view.changes.ablate if layer == record.name}
    rows = "".join(
        f'<button type="button" class="what-row{" own" if expert == own else ""}" data-expert="{expert}" '
        f'title="{"this is where it goes" if expert == own else f"send it to expert {expert}"}">'
        f'<span class="cell chip x{expert % MAX_COLOURS}">{expert}</span><span class="what-gate">router</span>'
        f'<i><u class="helps" style="width:{100 * probs[expert]:.1f}%"></u></i>'
        f"<span>{probs[expert]:.2f}</span></button>"
        for expert in sorted(range(len(probs)), key=lambda expert: -probs[expert])
        if expert not in off
    )
    token = f'<bdi class="quoted">{escape(band.tokens[view.token].strip() or "␣")}</bdi>'
    forced = (record.name, view.token) in view.changes.force
    back = '<button type="button" class="panel-act" data-expert="-1">Let the router choose</button>' if forced else ""
    again = "filled in" if isinstance(view.output, Filling) else "written"
    said = f"Click an expert: the token goes there, and the text is {again} again."
    return (
        f"<div{'' if isinstance(view.output, Filling) else ' class=writes'}>"
        f"<h2>Send {token} elsewhere in {layer_title(record.name, len(view.output.bands) > 1)}</h2>"
        f'<div class="what-if" role="group" aria-label="Experts for this token">{rows}</div>'
        f'<p class="facts">{said}</p>{back}</div>'
    )
