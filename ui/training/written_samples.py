"""What a model in training writes: the same beginnings or texts to translate, answered anew at every evaluation.

Texts are the data's and the model's: the template escapes all.
Try it: samples_html(Run.open("runs/en_hi").metrics())
"""

from collections.abc import Mapping
from typing import Any

from ui.look.html import quiet, render
from ui.training.run_summary import Records, lines_of

# Of many evaluations the last, the first and evenly spread ones between.
SHOWN_EVALUATIONS = 6
# An untrained model repeats itself until it must stop.
SHOWN_CHARACTERS = 400
NONE_YET = quiet("Appears with the first evaluation.")


def samples_html(records: Records) -> str:
    """For each sample the text given, what it should become where that is known, and the answers, the latest first."""
    lines = [line for line in lines_of(records, "samples") if isinstance(line.get("samples"), list) and line["samples"]]
    if not lines:
        return NONE_YET
    shown = min(len(lines), SHOWN_EVALUATIONS)
    spread = [lines[round(place * (len(lines) - 1) / max(shown - 1, 1))] for place in reversed(range(shown))]
    samples = [_sample(index, spread) for index in range(len(lines[-1]["samples"]))]
    return render("training/written_samples.html", samples=samples)


def _sample(index: int, lines: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(title, text) of each row of a sample."""
    answers = [(line["step"], line["samples"][index]) for line in lines if index < len(line["samples"])]
    given = answers[0][1]
    rows = [("given", _text(given, "text"))]
    if "reference" in given:
        rows.append(("wanted", _text(given, "reference")))
    return rows + [(f"step {step:,.0f}", _text(sample, "answer") or "(nothing)") for step, sample in answers]


def _text(sample: Mapping[str, Any], key: str) -> str:
    text = str(sample.get(key, ""))
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip() + "…"
