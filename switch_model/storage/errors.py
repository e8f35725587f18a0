"""CheckpointError, raised by everything that opens a checkpoint."""

# In characters: an untrusted file may hold names of any length.
MAX_MESSAGE = 600


class CheckpointError(Exception):
    """Says why a checkpoint can't be opened and what would be accepted. A long message is cut."""

    def __init__(self, message: str):
        super().__init__(message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} …")
