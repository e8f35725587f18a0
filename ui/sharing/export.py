"""A text that a model wrote, or blanks that it filled, to keep: as JSON that opens again, as a table, as a report.

The counterpart of records.py and report.py. Try it: read_output(output_record(view, "TinyStories"))
"""

import csv
import io
import json
from dataclasses import asdict, replace
from html import escape
from typing import Any

from switch_model import Filling, Generation, Routing
from switch_model.inference.mask_filler import Blank
from switch_model.inference.pipeline import MAX_CHARACTERS
from switch_model.inference.traces import TokenTrace
from ui.cards.written import answer_card, closer_cards, words_of_changes
from ui.sharing.changes import VERSION, changes_from_json, changes_to_json, decoding_from_json
from ui.sharing.picture import draw_grid
from ui.sharing.report import page_html
from ui.views.output_view import Output, OutputView

WRITTEN, FILLED = "written", "filled"


def output_record(view: OutputView, title: str) -> dict[str, Any]:
    """Everything on screen as plain data: the answer before and after the changes, and the routing records."""
    token, layer = view.place
    record = {
        "v": VERSION,
        "kind": FILLED if isinstance(view.output, Filling) else WRITTEN,
        "model": title,
        "text": view.text,
        "token": token,
        "layer": layer,
        "decoding": asdict(view.decoding),
        **changes_to_json(view.changes),
        "output": _output_to_json(view.output),
    }
    return record | ({"before": _output_to_json(view.base)} if view.changed else {})


def read_output(content: dict[str, Any]) -> tuple[OutputView, str]:
    """The view that `output_record` wrote, without a model (its key is ""), and the model's title.

    Raises ValueError, KeyError, TypeError for what is no such record.
    """
    output = _output_from_json(content["output"], content["kind"])
    text, decoding = str(content["text"])[:MAX_CHARACTERS], decoding_from_json(content["decoding"])
    base = _output_from_json(content["before"], content["kind"]) if "before" in content else output
    shapes = [[(record.name, record.num_experts) for record in one.routing] for one in (base, output)]
    if shapes[0] != shapes[1] or (isinstance(output, Filling) and len(base.blanks) != len(output.blanks)):
        raise ValueError("before and after do not fit together")
    title = str(content["model"])[:200]
    view = replace(
        OutputView.showing("", text, decoding, output), base=base, changes=changes_from_json(content), saved_from=title
    )
    return view.looking_at(int(content["token"]), int(content["layer"])), title


def output_csv(view: OutputView) -> str:
    """A row per token and sparse layer of each stack."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["stack", "position", "token", "written", "layer", "expert", "gate", "slot", "dropped"])
    for band in view.bands:
        for record in band.routing:
            columns = (record.expert[0], record.gate[0], record.slot[0], record.dropped[0])
            for index, values in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
                expert, gate, slot, dropped = values
                own = int(index >= band.written)
                place = [band.stack, index, band.tokens[index], own, record.name]
                writer.writerow([*place, expert, f"{gate:.6f}", slot, int(dropped)])
    return text.getvalue()


def output_report(view: OutputView, title: str) -> str:
    """The whole file: text, answer, grid, the chosen token and the loads."""
    said = words_of_changes(view)
    changes = f'<p class="facts">Changed: {escape(" · ".join(said))}.</p>' if said else ""
    grid = draw_grid(view, "svg", title).decode()
    cards = [
        f"<h2>Text, read by {escape(title)}</h2><p dir=auto>{escape(view.text)}</p>",
        f'<div class="prediction">{answer_card(view, None)}{changes}</div>',
        f"<h2>Where each token went</h2>{grid[grid.index('<svg') :]}",
        *closer_cards(view),
    ]
    head = '<div class="page-head"><h1>Switch Explorer</h1><p>A saved view: nothing here asks a model.</p></div>'
    style = "<style>.saved svg { width: 100%; height: auto; }</style>"
    return page_html(style + head + "".join(f'<div class="card">{card}</div>' for card in cards))


def output_file(view: OutputView, kind: str, title: str) -> bytes:
    """The content of a file: "json", "html", "csv", "svg" or "png"."""
    if kind == "json":
        return json.dumps(output_record(view, title)).encode()
    if kind == "html":
        return output_report(view, title).encode()
    return output_csv(view).encode() if kind == "csv" else draw_grid(view, kind, title)


def _output_to_json(output: Output) -> dict[str, Any]:
    if isinstance(output, Filling):
        blanks = [{"token": blank.token, "candidates": blank.candidates} for blank in output.blanks]
        return {"text": output.text, "blanks": blanks, "answer": _band_to_json(output.answer)}
    plain = {key: getattr(output, key) for key in ("text", "next_tokens", "chances", "log_probability", "finished")}
    source = output.source and _band_to_json(output.source)
    return plain | {"source": source, "answer": _band_to_json(output.answer)}


def _output_from_json(content: dict[str, Any], kind: str) -> Output:
    answer = _band_from_json(content["answer"])
    if kind == FILLED:
        blanks = [Blank(int(blank["token"]), _words(blank["candidates"])) for blank in content["blanks"]]
        if not blanks or not all(blank.candidates and 0 <= blank.token < len(answer.tokens) for blank in blanks):
            raise ValueError("the blanks do not fit the text")
        return Filling(str(content["text"]), blanks, answer)
    if kind != WRITTEN:
        raise ValueError("it is of another kind")
    source = None if content["source"] is None else _band_from_json(content["source"])
    chances = [None if chance is None else float(chance) for chance in content["chances"]]
    next_tokens = [_words(words) for words in content["next_tokens"]]
    if not len(chances) == len(next_tokens) == len(answer.tokens) or None in chances[:-1]:
        raise ValueError("the next tokens do not fit the text")
    if not -1e6 <= float(content["log_probability"]) <= 0:
        raise ValueError("the probability of the text is none")
    return Generation(
        str(content["text"]),
        source,
        answer,
        next_tokens,
        chances,
        float(content["log_probability"]),
        bool(content["finished"]),
    )


def _words(values: list[Any]) -> list[tuple[str, float]]:
    words = [(str(name), float(share)) for name, share in values]
    if not all(0 <= share <= 1 for _, share in words):
        raise ValueError("a probability is none")
    return words


def _band_to_json(band: TokenTrace) -> dict[str, Any]:
    plain = {name: value for name, value in vars(band).items() if name != "routing"}
    return plain | {"routing": [record.to_dict() for record in band.routing]}


def _band_from_json(content: dict[str, Any]) -> TokenTrace:
    tokens = [str(token) for token in content["tokens"]]
    routing = tuple(Routing.from_dict(record) for record in content["routing"])
    band = TokenTrace(
        stack=str(content["stack"]),
        text=str(content["text"]),
        tokens=tokens,
        offsets=[(int(start), int(end)) for start, end in content["offsets"]],
        unknown=[bool(one) for one in content["unknown"]],
        truncated=bool(content["truncated"]),
        routing=routing,
        written=int(content["written"]),
    )
    fits = (
        tokens
        and band.stack in ("encoder", "decoder")
        and len(tokens) == len(band.offsets) == len(band.unknown)
        and 0 <= band.written <= len(tokens)
        and all(tuple(record.expert.shape) == (1, len(tokens)) and bool(record.mask.all()) for record in routing)
        and all(int(record.expert.min()) >= 0 and int(record.expert.max()) < record.num_experts for record in routing)
    )
    if not fits:
        raise ValueError("the parts of a stack do not fit together")
    return band
