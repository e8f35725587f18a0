"""What a data set holds, as a card: warnings, then its classes and a few rows. Its template escapes texts.

Try it: report_html(data_report("toy"))
"""

from train.preflight.data_report import DataReport
from ui.look.html import render

MAX_LABELS = 10


def report_html(report: DataReport) -> str:
    """The card's HTML."""
    total, most = max(sum(report.labels.values()), 1), max(report.labels.values(), default=1)
    classes = [
        {"name": name, "width": f"{100 * count / most:.1f}", "share": f"{count / total:.1%}"}
        for name, count in list(report.labels.items())[:MAX_LABELS]
    ]
    return render(
        "training/data_card.html",
        facts=_facts(report),
        warnings=report.warnings,
        classes=classes,
        more=len(report.labels) - MAX_LABELS,
        columns=[name for name in (report.text_column, report.label_column, report.target_column) if name],
        kind=" pairs" if report.target_column else "" if report.label_column else " texts",
        rows=report.preview,
    )


def _facts(report: DataReport) -> list[str]:
    """What the first line says, as HTML: numbers and words of ours alone."""
    words = "word" if report.median_words == 1 else "words"
    lengths = f"<b>{report.median_words:,}</b> {words} a text (5 % have more than {report.most_words:,})"
    if report.labels:
        classes = "class" if len(report.labels) == 1 else "classes"
        return [f"<b>{report.rows:,}</b> rows", f"<b>{len(report.labels):,}</b> {classes}", lengths]
    if report.target_column:
        written = f"<b>{report.median_target_words:,}</b> to write (5 %: more than {report.most_target_words:,})"
        return [f"<b>{report.rows:,}</b> pairs", lengths, written]
    looked_at = f"the first <b>{report.looked_at:,}</b> looked at: "
    cut = looked_at if report.looked_at < report.rows else ""
    return [f"<b>{report.rows:,}</b> texts", lengths, f"{cut}<b>{report.characters:,}</b> characters"]
