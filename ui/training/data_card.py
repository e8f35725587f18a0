"""What a data set holds, as a card: warnings, then its classes and a few rows. Texts go through html.escape.

Try it: report_html(data_report("toy"))
"""

from html import escape

from train.preflight.data_report import DataReport

MAX_LABELS = 10


def report_html(report: DataReport) -> str:
    """The card's HTML."""
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in report.warnings)
    return (
        f'<p class="facts" role="status">{" · ".join(_facts(report))}</p>'
        + (f'<ul class="notice warnings">{warnings}</ul>' if warnings else "")
        + (f"<h3>Classes</h3>{_bars(report.labels)}" if report.labels else "")
        + f"<h3>First rows</h3>{_rows(report)}"
    )


def _facts(report: DataReport) -> list[str]:
    """What the first line says."""
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


def _bars(labels: dict[str, int]) -> str:
    total = max(sum(labels.values()), 1)
    bars = "".join(
        f'<div class="bar"><span dir="auto" title="{escape(name)}">{escape(name)}</span>'
        f'<i><u style="width:{100 * count / max(labels.values()):.1f}%"></u></i>'
        f"<span>{count / total:.1%}</span></div>"
        for name, count in list(labels.items())[:MAX_LABELS]
    )
    more = len(labels) - MAX_LABELS
    return bars + (f'<p class="facts">and {more:,} more classes</p>' if more > 0 else "")


def _rows(report: DataReport) -> str:
    kind = " pairs" if report.target_column else " texts" if not report.label_column else ""
    names = [name for name in (report.text_column, report.label_column, report.target_column) if name]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    cells = ("".join(f'<td dir="auto">{escape(cell)}</td>' for cell in row) for row in report.preview)
    rows = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="rows{kind}"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
