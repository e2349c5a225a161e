"""Errors that the user can mend; their text is one clear line."""


class InputError(Exception):
    """What was asked for cannot be done: what, where, and what is allowed."""


class ConfigError(InputError):
    """A configuration that cannot be run."""
