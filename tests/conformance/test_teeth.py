"""The public suite catches every deliberately broken allocator, and not its honest base."""

import functools

import pytest
from hypothesis import HealthCheck, Phase, settings

from harness.conformance import AllocatorConformance, Violation
from tests.conformance import (
    broken,
    broken_layered_paged,
    broken_layers,
    broken_steps,
    broken_swap,
)

#: the tests of the suite, the one that takes longest last
NAMES = sorted(
    (name for name in dir(AllocatorConformance) if name.startswith("test_")),
    key=lambda name: (name.endswith("in_any_order"), name),
)


@functools.cache
def failure(factory, name):
    """Run one test of the suite on `factory`; return what it raised, or None."""

    class Suite(AllocatorConformance):
        seeds = 3
        # Shrinking helps a person to read a failure, and only costs time here.
        settings = settings(
            max_examples=4,
            stateful_step_count=25,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
            print_blob=False,
        )

    Suite.factory = factory
    Suite.geometry = getattr(factory, "geometry", AllocatorConformance.geometry)
    try:
        getattr(Suite(), name)()
    except pytest.skip.Exception:
        pass
    except (Exception, pytest.fail.Exception) as error:
        return error
    return None


def failures(factory):
    """Yield what the tests of the suite raise on `factory`; each runs when it is asked for."""
    return filter(None, (failure(factory, name) for name in NAMES))


BROKEN = [
    *broken.BROKEN,
    *broken_swap.BROKEN,
    *broken_steps.BROKEN,
    *broken_layers.BROKEN,
    *broken_layered_paged.BROKEN,
]


#: which invariant a message has to name
NAMED = [
    (broken.NeverCopiesOnWrite, "single writer"),
    (broken.GrowsPartOfTheBatch, "atomic"),
    (broken.KeepsABlockARelease, "total release"),
    (broken.PicksBlocksAtRandom, "deterministic"),
    (broken.PromisesOneTooMany, "headroom"),
    (broken.LiesAboutQuietSteps, "quiet steps"),
    (broken.AccountsOneByteTooMany, "usage"),
    (broken.ForgetsToUnmap, "mapping"),
    (broken.NeverSaysNever, "never fits"),
    (broken.ClaimsTheWholePrompt, "honest hit"),
    (broken.ForgetsTheOldExtent, "conservation"),
    (broken.ClaimsAPrefixHit, "honest hit"),
    (broken.ForgetsWhatRunsOverPageEnds, "single writer"),
    (broken_swap.RestoresTheWrongPages, "single writer"),
    (broken_swap.GivesHostPagesBackAtOnce, "single writer"),
    (broken_swap.ResumesOneTokenShort, "addressing"),
    (broken_swap.ForgetsToUnmapWhatMakesRoom, "mapping"),
    (broken_swap.MapsTooLateForTheSwap, "mapping"),
    (broken_swap.SwapsBeyondHostMemory, "swaps"),
    (broken_swap.LosesAHostPageAResume, "swaps"),
    (broken_swap.NeverTakesALargeOneBack, "swaps"),
    (broken_swap.LetsInWhatCannotGrow, "swaps"),
    (broken_swap.RefusedSuspendReleases, "atomic"),
    (broken_swap.RefusedResumeReordersTheFreeList, "deterministic"),
    (broken_swap.CannotTakeBackWhatItSuspends, "protocol"),
    (broken_swap.FetchesTheWrongBlocks, "honest hit"),
    (broken_swap.SavesOverWhatItFetches, "honest hit"),
    (broken_swap.SavesInQuietSteps, "quiet steps"),
    (broken_steps.MapsBesideWhatTheStepNeeds, "causal"),
    (broken_steps.MapsAllBeside, "causal"),
    (broken_steps.UnmapsBesideWhatIsLive, "causal"),
    (broken_steps.UsesAgainWhatIsUnmappedBeside, "causal"),
    (broken_steps.UsesAgainWithoutAliases, "causal"),
    (broken_steps.UnmapsWhatIsPromised, "causal"),
    (broken_steps.ForgetsAPromise, "mapping"),
    (broken_steps.MapsOnAndOn, "quiet steps"),
    (broken_steps.LooksAheadInQuietSteps, "quiet steps"),
    (broken_steps.BeginsAStepWithNone, "protocol"),
    (broken_steps.BeginsAStepWithOneGrant, "protocol"),
    (broken_steps.CopiesBeforeAStep, "protocol"),
    (broken_steps.SwapsBesideAStep, "protocol"),
    (broken_layers.RingOfTheWindow, "no hole"),
    (broken_layers.PartsOverlap, "single writer"),
    (broken_layers.LaysOutAStraightRing, "addressing"),
    (broken_layers.WindowFreedEarly, "no hole"),
    (broken_layers.WritesIntoItsNeighbour, "single writer"),
    (broken_layers.GivesALargePageEarly, "single writer"),
    (broken_layers.UnmapsAWindowEarly, "mapping"),
    (broken_layers.ForgetsALayerGroup, "causal"),
    (broken_layers.DividesInSilence, "conversions"),
    *broken_layered_paged.CAUGHT,
]


UNNAMED = [factory for factory in BROKEN if factory not in {named for named, _ in NAMED}]


@pytest.mark.parametrize("factory", UNNAMED, ids=lambda factory: factory.__name__)
def test_a_broken_allocator_is_caught(factory):
    assert any(True for _ in failures(factory))


#: managers of layer groups, which `test_ours` tries at the same knobs
LAYERED = broken_layers.BASES + broken_layered_paged.HONEST


@pytest.mark.parametrize(
    "factory",
    [
        *dict.fromkeys(broken.BASES + broken_swap.HONEST + broken_steps.BASES),
        *(pytest.param(factory, marks=pytest.mark.further) for factory in LAYERED),
    ],
)
def test_without_a_bug_the_same_base_passes(factory):
    assert not list(failures(factory))


@pytest.mark.parametrize(("factory", "invariant"), NAMED)
def test_the_message_names_the_invariant(factory, invariant):
    texts = (str(error) for error in failures(factory) if isinstance(error, Violation))
    assert any(text.startswith(invariant) for text in texts), list(failures(factory))
