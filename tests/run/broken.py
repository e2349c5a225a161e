"""Allocators that are wrong in one thing each."""

from dataclasses import replace

from allocators.paged import Paged


class OneByteOff(Paged):
    """Says of one step that it holds a token more than there is."""

    def usage(self, rows, final, steps=1):
        usage = super().usage(rows, final, steps)
        return replace(usage, token=usage.token + 1)
