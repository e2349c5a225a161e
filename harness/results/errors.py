"""The one error of this package."""

from harness.errors import InputError


class ResultsError(InputError):
    """A run directory cannot be written or read; the message is one clear line."""
