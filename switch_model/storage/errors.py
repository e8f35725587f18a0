"""The error of everything that opens a checkpoint."""

# Characters: a file of unknown origin may hold names of any length.
MAX_MESSAGE = 600


class CheckpointError(Exception):
    """Says why a checkpoint can't be opened and what would be accepted. What it quotes of a file is cut."""

    def __init__(self, message: str):
        super().__init__(message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} …")
