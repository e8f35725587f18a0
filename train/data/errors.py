"""What is said when data can't be had."""


class DataError(Exception):
    """Says which data could not be had, why, and what to do."""
