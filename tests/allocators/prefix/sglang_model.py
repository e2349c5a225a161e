"""SGLang's radix cache with one request at a time: nodes, time stamps and whole leaves.

Written from the rules of `RadixCache`, `checkpoint` and `evict_from_tree_cache` in SGLang 0.5.23:

- A lookup walks down from the root and stamps every node that it enters with its own time.  Where
  it ends inside a node, that node is parted afterwards: the part that was not matched has been
  stamped too.
- An insertion walks and stamps in the same way; what is new becomes one node.
- A prompt is looked up without its last token, and the node it ends in is locked with all above.
  It is inserted after its prefill, and with all but the last output token (whose KV is never
  computed) when the request ends, whole pages only.
- To make room, the unlocked leaf with the oldest stamp goes whole, then the next; a parent without
  children is a leaf at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

Page = tuple[int, ...]


@dataclass(eq=False)
class Node:
    pages: list[Page]
    parent: Node | None
    stamp: int = 0
    locks: int = 0
    children: dict[Page, Node] = field(default_factory=dict)


class SGLangCache:
    """`margin_tokens` is asked for beyond what a step needs: SGLang asks for a page."""

    def __init__(self, slots: int, page_tokens: int, margin_tokens: int = 0) -> None:
        self.page_tokens, self.margin_tokens = page_tokens, margin_tokens
        self.pages = slots // page_tokens
        self.cached = self.owned = self.evicted = 0  # pages in the tree, of the request, gone
        self.parted = 0  # nodes
        self.root = Node([], None, locks=1)
        self.clock = itertools.count(1)

    def serve(self, prompt: Sequence[int], output: Sequence[int]) -> int:
        """Run one request from its lookup to its end; return the tokens that hit."""
        tokens, size = [*prompt, *output], self.page_tokens
        node, hit = self.match(self.cut(prompt[:-1]))
        self.lock(node, 1)
        self.make_room(len(prompt) - hit * size + self.margin_tokens)
        self.owned = -(-len(prompt) // size) - hit
        node, kept = self.checkpoint(self.cut(prompt), node, hit)
        length = len(prompt)
        for _ in output[1:]:  # the first comes from the prefill
            if self.margin_tokens or length % size == 0:
                self.make_room(size)
            self.owned += length % size == 0
            length += 1
        node, kept = self.checkpoint(self.cut(tokens[:length]), node, kept)
        self.owned -= -(-length // size) - kept
        assert self.owned == 0
        self.lock(node, -1)
        return hit * size

    def cut(self, tokens: Sequence[int]) -> list[Page]:
        size = self.page_tokens
        return [tuple(tokens[at : at + size]) for at in range(0, len(tokens) - size + 1, size)]

    def checkpoint(self, pages: list[Page], node: Node, kept: int) -> tuple[Node, int]:
        """Insert a request's pages, of which the tree owns the first `kept` for it; lock them."""
        held, _ = self.match(pages)
        matched = self.depth(held)
        if matched < len(pages):
            new = Node(pages[matched:], held, next(self.clock))
            held.children[pages[matched]] = new
            self.cached += len(new.pages)
        held, _ = self.match(pages)
        # The rest of them went into the tree, or were in it already and are given back.
        self.owned -= len(pages) - kept
        self.lock(node, -1)
        self.lock(held, 1)
        return held, len(pages)

    def match(self, pages: list[Page]) -> tuple[Node, int]:
        """Return the node in which the match ends, parted so that it ends there, and its pages."""
        now, node, at = next(self.clock), self.root, 0
        while at < len(pages) and pages[at] in node.children:
            node = node.children[pages[at]]
            node.stamp = now
            same = common(node.pages, pages[at:])
            at += same
            if same < len(node.pages):
                return self.part(node, same), at
        return node, at

    def part(self, node: Node, at: int) -> Node:
        self.parted += 1
        upper = Node(node.pages[:at], node.parent, next(self.clock), node.locks)
        node.parent.children[upper.pages[0]] = upper
        node.pages, node.parent = node.pages[at:], upper
        upper.children[node.pages[0]] = node
        return upper

    def lock(self, node: Node, by: int) -> None:
        while node is not self.root:
            node.locks += by
            node = node.parent

    def make_room(self, tokens: int) -> None:
        free = (self.pages - self.cached - self.owned) * self.page_tokens
        while free < tokens:
            leaves = [n for n in self.nodes() if not n.children and not n.locks]
            if not leaves:
                return
            oldest = min(leaves, key=lambda leaf: leaf.stamp)
            del oldest.parent.children[oldest.pages[0]]
            self.cached -= len(oldest.pages)
            self.evicted += len(oldest.pages)
            free += len(oldest.pages) * self.page_tokens

    def nodes(self) -> list[Node]:
        found = [self.root]
        for node in found:
            found.extend(node.children.values())
        return found[1:]

    def depth(self, node: Node) -> int:
        return 0 if node is self.root else len(node.pages) + self.depth(node.parent)

    def lookup(self, tokens: Sequence[int]) -> int:
        """Return the tokens of `tokens` that are cached; changes nothing."""
        pages, node, at = self.cut(tokens), self.root, 0
        while at < len(pages) and pages[at] in node.children:
            node = node.children[pages[at]]
            same = common(node.pages, pages[at:])
            at += same
            if same < len(node.pages):
                break
        return at * self.page_tokens


def common(one: list[Page], other: list[Page]) -> int:
    """Return how many leading pages two runs share."""
    n = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        n += 1
    return n
