"""A policy derived from one of ours is asked itself, or says that it does not know the model."""

import pytest

from allocators.base import Unsupported
from allocators.contiguous import Contiguous
from allocators.layered.contiguous import LayeredContiguous
from allocators.layered.jenga import Jenga
from allocators.layered.paged import LayeredPaged
from allocators.layered.virtual import LayeredVirtual
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.conformance import SMALL_GEOMETRY
from tests.conformance.matrix_layers import PAGE, pool

UNIFORM = (Contiguous, Paged, Virtual)
LAYERED = (LayeredContiguous, LayeredPaged, LayeredVirtual, Jenga)
KNOBS = {Virtual: {"page_size": "64KiB"}, LayeredVirtual: {"page_size": "64KiB"}}


def derived(kind):
    return type("Derived", (kind,), {})


@pytest.mark.parametrize("kind", UNIFORM + LAYERED)
def test_derived_policy_is_built_as_itself(kind):
    geometry = pool("windows", PAGE // 8) if kind in LAYERED else SMALL_GEOMETRY
    mine = derived(kind)
    assert type(mine.of(geometry, **KNOBS.get(kind, {}))) is mine


@pytest.mark.parametrize("kind", UNIFORM)
def test_policy_derived_from_a_uniform_one_is_not_replaced_by_ours(kind):
    with pytest.raises(Unsupported, match="Derived knows uniform models only, not layer groups"):
        derived(kind).of(pool("windows", PAGE // 8), **KNOBS.get(kind, {}))


@pytest.mark.parametrize("kind", LAYERED)
def test_policy_derived_from_a_layered_one_says_that_it_needs_layer_groups(kind):
    with pytest.raises(Unsupported, match="Derived knows models with layer groups only"):
        derived(kind).of(SMALL_GEOMETRY, **KNOBS.get(kind, {}))
