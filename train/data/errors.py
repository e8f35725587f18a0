"""DataError, raised when data can't be read or used."""

# Why something on the Hub can't be read.
OFFLINE, NO_ANSWER = "the Hugging Face Hub is switched off here", "the Hugging Face Hub does not answer"
NOT_IN_FOLDER = "it is not in the folder of data sets"


class DataError(Exception):
    """Says which data can't be used, why, and what to do."""


class UnclearColumns(DataError):
    """The names of the columns don't say which of them are to be read."""


class Unreachable(DataError):
    """The data are elsewhere. `why`: what keeps them from being read, in a few words."""

    def __init__(self, said: str, why: str):
        super().__init__(said)
        self.why = why
