"""A measured file as it lies on the disk: text, or the JSON documents in it."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.replay.errors import ReplayError


@dataclass(frozen=True)
class Source:
    """`documents` are the JSON values of a file that holds nothing else, one after the other."""

    path: Path
    text: str
    documents: list[Any] | None

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def objects_with(self, keys: Set[str]) -> list[Any] | None:
        """The documents, if there are any and all are objects that have these keys."""
        documents = self.documents
        if documents and all(isinstance(d, dict) and d.keys() >= keys for d in documents):
            return documents
        return None


def read_text(path: Path) -> str:
    """Return a file's text.  Raises ReplayError where it is absent, empty or no text."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise ReplayError(f"{path}: no such file") from error
    except OSError as error:
        raise ReplayError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReplayError(
            f"{path}: byte {error.start} is not UTF-8 text; expected what a benchmark client wrote"
        ) from error
    if "\0" in text:
        raise ReplayError(f"{path}: binary; expected what a benchmark client wrote")
    if not text.strip():
        raise ReplayError(f"{path}: the file is empty")
    return text


def open_source(path: Path) -> Source:
    """Read a measured file.  Raises ReplayError, also for JSON that is cut short."""
    text = read_text(path)
    if text.lstrip()[:1] not in "{[":
        return Source(path, text, None)
    return Source(path, text, _documents(path, text))


def _documents(path: Path, text: str) -> list[Any]:
    """The JSON values of a file: one, one a line, or several that were appended."""
    decoder, documents, at = json.JSONDecoder(), [], 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return documents
        try:
            document, at = decoder.raw_decode(text, at)
        except RecursionError as error:
            raise ReplayError(f"{path}: JSON that is nested too deeply") from error
        except json.JSONDecodeError as error:
            raise ReplayError(
                f"{path}:{error.lineno}: not JSON, or cut short: {error.msg}"
            ) from error
        except ValueError as error:
            raise ReplayError(f"{path}: not JSON: {error}") from error
        documents.append(document)
