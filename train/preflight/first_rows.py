"""The rows that a report on a data set looks at: all, or of a table too large for memory the first.

Try it: looked_at(DataSource("my.csv")).times
"""

from dataclasses import dataclass

from datasets import Dataset

from train.data.loading import files_of, read_rows
from train.data.source import DataSource
from train.data.tables import bytes_of, count_rows, is_large

# Of a table too large for memory, or of a stream, which may be endless.
MOST_ROWS = 20_000


@dataclass(frozen=True)
class LookedAt:
    """Rows with the class names by index, if known; how many times as many the table has; and a remark, or none."""

    rows: Dataset
    names: list[str] | None
    times: float
    remarks: list[str]


def looked_at(source: DataSource) -> LookedAt:
    """Raises DataError when they can't be read."""
    rows, names = read_rows(source, MOST_ROWS)
    files = files_of(source)
    if not is_large(files):
        return LookedAt(rows, names, 1.0, [])
    if (count := count_rows(files)) is None:  # By the bytes, each cell with what divides it from the next.
        own = sum(len(str(cell).encode("utf-8", "replace")) + 1 for cells in rows.to_dict().values() for cell in cells)
        count = len(rows) * sum(map(bytes_of, files)) / max(own, 1)
    times = max(count / len(rows), 1.0)
    said = (
        f"The table is large: what is said here is about its first {len(rows):,} rows of about {round(count, -4):,.0f}."
    )
    return LookedAt(rows, names, times, [said])
