"""Looking up values in a checkpoint's config.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from harness.executors.model.decoder.errors import DecoderError


class Values:
    """A config.json: looks values up and says in one line which of them is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DecoderError(f"{path}: no such file; a checkpoint needs one") from error
        except (OSError, ValueError, RecursionError) as error:
            raise DecoderError(f"{path}: not readable JSON ({error})") from error
        if not isinstance(self._values, dict):
            raise DecoderError(f"{path}: not a JSON object")

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or `default` if it is absent or null."""
        value = self._values.get(key)
        return default if value is None else value

    def size(self, key: str, default: int | None = None) -> int:
        """Return a positive whole number; required without a `default`."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DecoderError(
                f"{self.path}: {key} is {value!r}; allowed: an integer of at least 1"
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a positive number; required without a `default`."""
        return self.positive(key, self.get(key, default))

    def positive(self, key: str, value: Any) -> float:
        """Return `value`, called `key`, as a positive number."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # An integer may be larger than any float.
        if not number or not 0 < value <= sys.float_info.max:
            raise DecoderError(f"{self.path}: {key} is {value!r}; allowed: a number above 0")
        return float(value)

    def only(self, key: str, allowed: Any, default: Any) -> None:
        """Raise unless the value, or `default`, is `allowed`."""
        value = self.get(key, default)
        if value != allowed:
            raise DecoderError(
                f"{self.path}: {key} is {json.dumps(value)}; allowed: {json.dumps(allowed)}"
            )
