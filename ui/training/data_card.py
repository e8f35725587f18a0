"""What a data set holds, as a card: warnings, then its classes and a few rows. Its template escapes texts.

Try it: report_html(data_report(DataSource("toy")))
"""

from train.formatting import percent
from train.preflight.data_report import DataReport
from ui.look.html import render
from ui.look.page_words import in_labels

MAX_LABELS = 10


def report_html(report: DataReport) -> str:
    """The card's HTML."""
    total, most = max(sum(report.labels.values()), 1), max(report.labels.values(), default=1)
    classes = [
        {"name": name, "width": f"{100 * count / most:.1f}", "share": percent(count / total)}
        for name, count in list(report.labels.items())[:MAX_LABELS]
    ]
    return render(
        "training/data_card.html",
        report=report,
        warnings=[in_labels(warning) for warning in report.warnings],
        classes=classes,
        more=len(report.labels) - MAX_LABELS,
        columns=[name for name in (report.text_column, report.label_column, report.target_column) if name],
        kind=" pairs" if report.target_column else "" if report.label_column else " texts",
    )
