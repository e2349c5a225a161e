"""Jenga's pages with prefixes, page by page: every choice is a search through all of them."""

from dataclasses import dataclass, field


@dataclass
class Small:
    """`state`: held, cached or blank; since when it is, and how deep its block ends."""

    state: str = "blank"
    since: int = 0
    end: int = 0
    keyed: bool = False


@dataclass
class Large:
    table: int = -1  # of no layer group
    row: int = -1
    pages: list[Small] = field(default_factory=list)
    blank_since: int = 0  # when it came to have a blank page
    free_since: int = 0

    def count(self, state):
        return sum(page.state == state for page in self.pages)

    def is_idle(self):
        return self.table >= 0 and not self.count("held")


class SlowJenga:
    def __init__(self, num_large, per_large, request_aware):
        self.large = [Large(free_since=i) for i in range(num_large)]
        self.per_large, self.request_aware = per_large, request_aware
        self.time, self.gives = num_large, 0
        self.evicted = []

    # -- how much there is -------------------------------------------------------------------
    def fits(self, pages):
        free = sum(large.table < 0 or large.is_idle() for large in self.large)
        return self.large_needed(pages) <= free

    def large_needed(self, pages):
        needed = 0
        for table, n in enumerate(pages):
            in_use = [of for of in self.large if of.table == table and not of.is_idle()]
            short = n - sum(len(of.pages) - of.count("held") for of in in_use)
            needed += max(0, -(-short // self.per_large[table]))
        return needed

    # -- taking ------------------------------------------------------------------------------
    def take(self, tables, rows):
        due = [list(tables).count(table) for table in range(len(self.per_large))]
        taken = []
        for table, row in zip(tables, rows, strict=True):
            taken.append(self.take_one(table, row if self.request_aware else -2, due))
            due[table] -= 1
        return taken

    def take_one(self, table, row, due):
        mine = [of for of in self.in_use(table) if of.row == row and of.count("blank")]
        # A page that is a large one is nobody's to go on with.
        mine = mine if self.per_large[table] > 1 else []
        some = [of for of in self.in_use(table) if len(of.pages) > of.count("held")]
        if not mine and (not some or self.may_open(table, due)):
            mine = [self.open(table, row)]
        if not mine:
            mine = [of for of in some if of.count("blank")]
        if mine:
            large = min(mine, key=lambda of: of.blank_since)
        else:
            large = min(some, key=lambda of: min(self.ranks(of)))
            self.evict([min(self.ranks(large))])
        small = min((p for p in large.pages if p.state == "blank"), key=lambda p: p.since)
        small.state, small.keyed = "held", False
        return self.number(large, small)

    def may_open(self, table, due):
        """Say whether all that is due would fit if this page came out of a new large one."""
        free = [of for of in self.large if of.table < 0 or of.is_idle()]
        if not free:
            return False
        was = free[0]
        before = (was.table, was.pages)
        was.table, was.pages = table, [Small("held")] + [Small()] * (self.per_large[table] - 1)
        rest = [n - (t == table) for t, n in enumerate(due)]
        fits = self.fits(rest)
        was.table, was.pages = before
        return fits

    def open(self, table, row):
        free = [of for of in self.large if of.table < 0]
        if free:
            large = min(free, key=lambda of: of.free_since)
        else:
            idle = [of for of in self.large if of.is_idle()]
            large = min(idle, key=lambda of: (*max(self.ranks(of))[:2], self.large.index(of)))
            self.evict(self.ranks(large))
        large.table, large.row, large.blank_since = table, row, self.now()
        large.pages = [Small(since=self.now()) for _ in range(self.per_large[table])]
        return large

    def ranks(self, large):
        """Return what its cached pages are worth: since when, how deep, number."""
        return [
            (page.since, -page.end, self.number(large, page))
            for page in large.pages
            if page.state == "cached"
        ]

    def evict(self, ranks):
        pages = sorted(rank[2] for rank in ranks)
        self.evicted.append(pages)
        for number in pages:
            large, page = self.find(number)
            if not large.count("blank"):
                large.blank_since = self.now()
            page.state, page.keyed, page.since = "blank", False, self.now()

    # -- giving ------------------------------------------------------------------------------
    def give(self, pages):
        self.gives += 1
        for number in pages:
            large, page = self.find(number)
            if page.keyed:
                page.state, page.since = "cached", self.gives
                continue
            if not large.count("blank"):
                large.blank_since = self.now()
            page.state, page.since = "blank", self.now()
            self.close(large)
        for large in self.large:
            if large.is_idle():
                large.row = -1
        # A page is the first of its large page to be free if it is not free whole.

    def close(self, large):
        if large.count("blank") == len(large.pages):
            large.table, large.row, large.free_since = -1, -1, self.now()

    def hit(self, pages):
        for number in pages:
            large, page = self.find(number)
            if large.is_idle() and large.count("blank"):
                large.blank_since = self.now()
            page.state = "held"

    def left(self, row):
        for large in self.large:
            if large.row == row:
                large.row = -1

    # -- numbers -----------------------------------------------------------------------------
    def in_use(self, table):
        return [of for of in self.large if of.table == table and not of.is_idle()]

    def number(self, large, small):
        before = sum(len(self.large) * n for n in self.per_large[: large.table])
        place = next(i for i, page in enumerate(large.pages) if page is small)
        index = next(i for i, of in enumerate(self.large) if of is large)
        return before + index * self.per_large[large.table] + place

    def find(self, number):
        for n in self.per_large:
            if number < len(self.large) * n:
                large = self.large[number // n]
                return large, large.pages[number % n]
            number -= len(self.large) * n
        raise AssertionError

    def now(self):
        self.time += 1
        return self.time
