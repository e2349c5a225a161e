"""vLLM's block pool and prefix cache with lists and tuples: slow, and plain to read.

A block's key is the tuple of all tokens up to its end, so no two prefixes can be mixed up.  `free`
is in the order in which blocks will be used.
"""

from __future__ import annotations

from collections import Counter


class SlowPool:
    def __init__(self, blocks: int, block_size: int, free_order: str = "unkeyed_first") -> None:
        self.size, self.free_order = block_size, free_order
        self.free = list(range(blocks))
        self.ref = [0] * blocks
        self.key: list[tuple | None] = [None] * blocks
        self.named: dict[tuple, list[int]] = {}
        self.held: dict[int, list[int]] = {}
        self.stream: dict[int, tuple] = {}
        self.length: dict[int, int] = {}
        self.saw: Counter[str] = Counter()

    def hits(self, stream: tuple, whole: int) -> list[int]:
        found = []
        for end in range(self.size, whole, self.size):  # the last token is never hit
            if stream[:end] not in self.named or end > len(stream):
                break
            found.append(self.named[stream[:end]][0])
        return found

    def admit(self, row: int, stream: tuple, tokens: int, whole: int) -> int | None:
        """Return the tokens that hit, or None for a refusal."""
        found = self.hits(stream, whole)
        need = -(-whole // self.size) - len(found)
        idle = [block for block in found if self.ref[block] == 0]
        if need + len(idle) > len(self.free):
            self.saw["refusals"] += 1
            self.saw["refused for its own hits"] += need <= len(self.free)
            return None
        for block in idle:
            self.free.remove(block)
        for block in found:
            self.ref[block] += 1
        self.saw["hits"] += len(found)
        self.saw["hits on live blocks"] += len(found) - len(idle)
        self.held[row], self.stream[row], self.length[row] = found.copy(), stream, 0
        self.extend(row, tokens)
        return len(found) * self.size

    def extend(self, row: int, length: int) -> None:
        """Let a row be `length` tokens long; the caller has checked that it fits."""
        while len(self.held[row]) * self.size < length:
            block = self.free.pop(0)
            self.forget(block)
            self.ref[block] = 1
            self.held[row].append(block)
        for b in range(length // self.size):
            block, key = self.held[row][b], self.stream[row][: (b + 1) * self.size]
            if self.key[block] is None and len(key) == (b + 1) * self.size:
                self.key[block] = key
                self.saw["duplicates"] += key in self.named
                self.named.setdefault(key, []).append(block)
        self.length[row] = length

    def grow(self, rows: list[int], n: int) -> bool:
        need = sum(
            max(0, -(-(self.length[row] + n) // self.size) - len(self.held[row])) for row in rows
        )
        if need > len(self.free):
            self.saw["refusals to grow"] += 1
            return False
        for _ in range(n):
            for row in rows:
                self.extend(row, self.length[row] + 1)
        return True

    def release(self, row: int) -> None:
        freed = []
        for block in reversed(self.held.pop(row)):
            self.ref[block] -= 1
            if self.ref[block] == 0:
                freed.append(block)
        if self.free_order == "by_age":
            self.free = self.free + freed
        else:
            unkeyed = [block for block in freed if self.key[block] is None]
            keyed = [block for block in freed if self.key[block] is not None]
            self.free = unkeyed + self.free + keyed
            self.saw["unkeyed blocks freed before cached ones"] += bool(unkeyed and self.cached())
        del self.stream[row], self.length[row]

    def cached(self) -> int:
        return sum(self.key[block] is not None for block in self.free)

    def forget(self, block: int) -> None:
        key = self.key[block]
        if key is None:
            return
        self.saw["evictions"] += 1
        self.named[key].remove(block)
        if not self.named[key]:
            del self.named[key]
        self.key[block] = None
