"""Which task a data set suits, where nobody has said: classes where a column holds such, else pairs, else texts.

Try it: fitting_task("my.csv")
"""

from train.columns import classes_of, texts_of
from train.data import DATASETS, columns_to_read, read_rows
from train.pairs import choose_pair
from train.presets import default_task
from train.tables import DataError

# Of the rows: where more than so many have a class of their own, it is a text rather than a class.
OWN_CLASS = 0.5


def fitting_task(dataset: str, data_dir: str | None = None) -> str:
    """The task that a named data set is for, or the first that the columns of any other one allow."""
    named = default_task(dataset)
    if dataset in DATASETS or named != "classification":
        return named
    try:
        rows, names = read_rows(dataset, "train", data_dir)
    except DataError:
        return named
    try:
        columns = columns_to_read(dataset, rows.column_names, None, None)
        classes, found = classes_of(rows, texts_of(rows, columns), columns, names)
        # Few rows of pairs look like few rows with many classes.
        if len(found) <= OWN_CLASS * (len(classes) - classes.count(None)) or names or len(columns.texts) > 1:
            return named
    except DataError:
        pass
    try:
        choose_pair(dataset, rows.column_names)
        return "translation"
    except DataError:
        return "clm" if len(rows.column_names) == 1 else named
