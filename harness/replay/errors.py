"""The one error of this package."""

from harness.errors import InputError


class ReplayError(InputError):
    """A measured file that cannot be replayed; the message is one clear line."""
