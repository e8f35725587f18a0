"""What a data set holds, as a card: warnings first, then its classes and a few rows. Texts go through html.escape.

Try it: report_html(data_report("toy"))
"""

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.data_report import DataReport

MAX_LABELS = 10


def report_html(report: "DataReport") -> str:
    """The card's HTML."""
    total = max(sum(report.labels.values()), 1)
    shown = list(report.labels.items())[:MAX_LABELS]
    bars = "".join(
        f'<div class="bar"><span dir="auto" title="{escape(name)}">{escape(name)}</span>'
        f'<i><u style="width:{100 * count / max(report.labels.values()):.1f}%"></u></i>'
        f"<span>{count / total:.1%}</span></div>"
        for name, count in shown
    )
    if len(report.labels) > MAX_LABELS:
        bars += f'<p class="facts">and {len(report.labels) - MAX_LABELS:,} more classes</p>'
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in report.warnings)
    rows = "".join(
        f'<tr><td dir="auto">{escape(text)}</td><td dir="auto">{escape(label)}</td></tr>'
        for text, label in report.preview
    )
    return (
        f'<p class="facts" role="status"><b>{report.rows:,}</b> rows · <b>{len(report.labels):,}</b> '
        f"{'class' if len(report.labels) == 1 else 'classes'} · "
        f"<b>{report.median_words:,}</b> words a text (5 % have more than {report.most_words:,})</p>"
        + (f'<ul class="notice warnings">{warnings}</ul>' if warnings else "")
        + f"<h3>Classes</h3>{bars}<h3>First rows</h3>"
        + f'<div class="rows"><table><tbody>{rows}</tbody></table></div>'
    )
