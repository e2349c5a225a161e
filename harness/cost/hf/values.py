"""Looking up values in a config.json, and knowing which of them were looked up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.cost.limits import MODEL
from harness.cost.shapes import CostError

#: letters of a value that an error shows
MOST_SHOWN = 80


class Values:
    """A config.json, or an object in it: looks values up and says in one line which is wrong.

    Raises `CostError` for all that is wrong.
    """

    def __init__(self, path: Path, values: dict[str, Any] | None = None, prefix: str = "") -> None:
        """Read the file; `values` are an object in it, whose name `prefix` ends in a dot."""
        self.path, self._prefix, self._used = path, prefix, set[str]()
        self._values = self._read() if values is None else values

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CostError(f"{self.path}: no such file; a checkpoint needs one") from error
        except (OSError, ValueError, RecursionError) as error:
            raise CostError(f"{self.path}: not readable JSON ({error})") from error
        if not isinstance(values, dict):
            raise CostError(f"{self.path}: not a JSON object")
        return values

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or `default` if it is absent or null."""
        self._used.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def stated(self, *keys: str) -> None:
        """Raise for the first of these keys that the file leaves out; null is a value too."""
        for key in keys:
            if key not in self._values:
                raise self.wrong(key, "a value, or null for none")

    def spelled(self, *keys: str) -> str:
        """Return the first of these names of one thing that has a value, or else the first."""
        return next((key for key in keys if self.get(key) is not None), keys[0])

    def inner(self, key: str) -> Values:
        """Return the object called `key`, which must be there."""
        value = self.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Values(self.path, value, f"{self._prefix}{key}.")

    def size(self, key: str, default: int | None = None, least: int = 1) -> int:
        """Return a whole number of at least `least`; required without a `default`."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"an integer of at least {least}", repr(value))
        return value

    def layers(self) -> int:
        """Return the number of layers, few enough to make a list of them."""
        layers = self.size("num_hidden_layers")
        too_many = MODEL["layers"].refusal(layers)
        if too_many is not None:
            raise self.wrong("num_hidden_layers", too_many.removeprefix("must be "))
        return layers

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def sizes(self, key: str, least: int = 0) -> list[int]:
        """Return a list of whole numbers of at least `least`, empty if it is absent."""
        value = self.get(key, [])
        if not isinstance(value, list) or not all(
            type(each) is int and each >= least for each in value
        ):
            raise self.wrong(key, f"a list of integers of at least {least}")
        return list(value)

    def name(self, key: str, allowed: Iterable[str]) -> str:
        """Return one of the names that are allowed."""
        value, names = self.get(key), sorted(allowed)
        if value not in names:
            raise self.wrong(key, f"one of {', '.join(names)}")
        return str(value)

    def number(self, key: str, default: float | None = None) -> float:
        """Return a positive number; required without a `default`."""
        return self.positive(key, self.get(key, default))

    def positive(self, key: str, value: Any) -> float:
        """Return `value`, called `key`, as a positive number."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # An integer may be larger than any float.
        if not number or not 0 < value <= sys.float_info.max:
            raise self.wrong(key, "a number above 0", repr(value))
        return float(value)

    def only(self, key: str, allowed: Any, default: Any) -> None:
        """Raise unless the value, or `default`, is `allowed`."""
        value = self.get(key, default)
        if value != allowed or isinstance(value, bool) != isinstance(allowed, bool):
            raise self.wrong(key, json.dumps(allowed), json.dumps(value))

    def wrong(self, key: str, allowed: str, value: str | None = None) -> CostError:
        """Return the error that a value is not what is allowed; `value` as it is to be shown."""
        if value is None:
            value = json.dumps(self._values.get(key))
        if key not in self._values:
            value = "missing"
        if len(value) > MOST_SHOWN:
            value = f"{value[: MOST_SHOWN - 3]}..."
        return CostError(f"{self.path}: {self._prefix}{key} is {value}; allowed: {allowed}")

    def refuse_others(self, kind: str, known: Iterable[str]) -> None:
        """Raise for the first key that was not looked up and is not one of `known`."""
        unknown = sorted(self._values.keys() - self._used - {*known})
        if unknown:
            raise CostError(
                f"{self.path}: {self._prefix}{unknown[0]} is not known of a {kind}, and what it "
                "changes would be a guess: take it out if it changes neither layers nor weights"
            )
