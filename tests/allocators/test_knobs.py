"""A bad knob is one clear line that names it and says what is allowed."""

import pytest

from allocators.base import Geometry
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual

POOL = Geometry(capacity_tokens=1000, max_seqs=4, max_len=100, kv_heads=8, head_dim=512)
NAN = float("nan")

BAD = [
    *[(Paged, "block_size", value, "from 1 to 512")
      for value in (0, -1, 513, "x", "16", 1.5, 16.0, True, None, NAN)],
    *[(Paged, "watermark", value, "at least 0 and below 1")
      for value in (NAN, -0.1, 1.0, 2, "x", None, True)],
    *[(Paged, "free_order", value, "unkeyed_first, by_age") for value in ("lifo", None, [], True)],
    *[(Virtual, "page_size", value, "64KiB, 128KiB, 256KiB, 2MiB")
      for value in ("3MiB", "2 MiB", 2 << 20, None, ["2MiB"])],
    *[(Virtual, "layout", value, "per_layer, sliced") for value in ("slice", None, 1)],
    *[(Virtual, "sharing", value, "alias, copy") for value in ("none", True)],
    *[(Virtual, name, value, "true or false")
      for name in ("deferred", "background") for value in ("yes", 1, None)],
    *[(Virtual, "eager", value, "true, false or null") for value in ("yes", 1)],
    *[(Virtual, "reclaim_free", value, "null or from 0 to 1")
      for value in (NAN, -0.1, 1.1, "x", True)],
    *[(Virtual, "rules", value, "vattention, paper") for value in ("code", None, 1)],
    *[(Virtual, "admission", value, "needed, vattention") for value in ("all", None, True)],
    *[(Contiguous, "reservation", value, "max, pow2, oracle, grow") for value in ("min", None, [])],
    *[(Contiguous, "placement", value, "buddy, first_fit, best_fit") for value in ("worst", 1)],
]  # fmt: skip


@pytest.mark.parametrize(("family", "knob", "value", "allowed"), BAD)
def test_a_bad_knob_is_named_with_what_is_allowed(family, knob, value, allowed):
    with pytest.raises(ValueError, match=knob) as caught:
        family(POOL, **{knob: value})
    text = str(caught.value)
    assert allowed in text
    assert repr(value) in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("knob", "value"), [("eager", True), ("eager", False), ("reclaim_free", 0.1)]
)
def test_what_the_paper_alone_has_is_refused_with_the_rules_of_the_code(knob, value):
    with pytest.raises(ValueError, match=f"^{knob} needs rules=paper: .*no such rule$") as caught:
        Virtual(POOL, page_size="64KiB", **{knob: value})
    assert "\n" not in str(caught.value)
    allowed = Virtual(POOL, page_size="64KiB", rules="paper", **{knob: value})
    share = int(0.1 * allowed.pages.num_pages)
    assert (allowed.thread.eager, allowed.thread.keep_free) == (value is not False, share)


@pytest.mark.parametrize("size", [1, 512])
def test_the_limits_of_block_size_are_allowed(size):
    assert Paged(POOL, block_size=size).geometry.page_tokens == size


@pytest.mark.parametrize("field", ["capacity_tokens", "max_seqs", "max_len"])
def test_an_empty_geometry_is_refused(field):
    sizes = {"capacity_tokens": 10, "max_seqs": 1, "max_len": 10, field: 0}
    with pytest.raises(ValueError, match=field):
        Paged(Geometry(**sizes), block_size=1)
