"""What a decoder cannot be built from."""

from __future__ import annotations

from harness.errors import ConfigError


class DecoderError(ConfigError):
    """A model or a checkpoint that cannot be run; one line: what, where, what is allowed."""
