"""The one error of this package."""


class ResultsError(Exception):
    """A run directory cannot be written or read; the message is one clear line."""
