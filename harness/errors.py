"""Errors that the user can mend; their text is one clear line."""


class ConfigError(Exception):
    """A configuration that cannot be run: what, where, and what is allowed."""
