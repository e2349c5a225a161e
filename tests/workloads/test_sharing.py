"""What prompts share: prefixes by popularity, and a trace's block ids at any block size."""

import dataclasses
import json

import numpy as np
import pytest
from omegaconf import OmegaConf

from tests.places import CONF
from tests.workloads.serving import serve
from workloads import WorkloadSpec, build, read


def shipped(name, **changes):
    option = OmegaConf.load(CONF / "workload" / f"{name}.yaml").workload
    merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(WorkloadSpec), option))
    return dataclasses.replace(merged, **changes)


def cached_tokens(requests, block_tokens):
    """Hits of each request, one after the other, in a cache that never forgets: whole blocks of
    the longest leading run seen before, the last token never."""
    seen, hits = set(), []
    for i in range(len(requests)):
        ids = requests.prompt_ids(i)
        key, hit, running = 0, 0, True
        for start in range(0, len(ids) // block_tokens * block_tokens, block_tokens):
            key = hash((key, ids[start : start + block_tokens].tobytes()))
            running = running and key in seen and start + block_tokens < len(ids)
            hit += block_tokens * running
            seen.add(key)
        hits.append(hit)
    return hits


def expected_tokens(requests, block_tokens):
    """The same from the trace's own ids: the longest leading run in common with one before."""
    lengths, hits = requests.prompt_tokens.tolist(), []
    for i, mine in enumerate(requests.hash_ids):
        longest = 0
        for j in range(i):
            n = min(len(mine), len(requests.hash_ids[j]))
            different = np.flatnonzero(mine[:n] != requests.hash_ids[j][:n])
            common = int(different[0]) if len(different) else n
            shared = min(common * requests.hash_block_tokens, lengths[i], lengths[j])
            # A prompt shares whole blocks, and of its own never the last token.
            usable = min(shared, lengths[i] - 1) // block_tokens * block_tokens
            longest = max(longest, usable)
        hits.append(longest)
    return hits


@pytest.mark.parametrize("prefix_tokens", [80, 341])
def test_both_prompts_of_the_paper_share_their_prefix_and_nothing_else(prefix_tokens):
    requests = build(shipped("shared_prefix", prefix_tokens=prefix_tokens, num_requests=50))
    ids = [requests.prompt_ids(i) for i in range(50)]
    assert all((a[:prefix_tokens] == np.arange(prefix_tokens)).all() for a in ids)
    own = np.concatenate([a[prefix_tokens:] for a in ids])
    assert len(own) == requests.prompt_tokens.sum() - 50 * prefix_tokens
    assert len(np.unique(own)) == len(own)
    assert own.max() < 0
    assert len(ids[0]) == requests.prompt_tokens[0] >= prefix_tokens + 16


@pytest.mark.parametrize("skew", [0.0, 0.7, 1.0, 2.0])
def test_prefixes_are_as_popular_as_zipf_says_and_disjoint(skew):
    n, count = 40_000, 6
    requests = build(shipped("shared_prefix", num_requests=n, num_prefixes=count, prefix_zipf=skew))
    weight = np.arange(1, count + 1) ** -skew
    share = np.bincount(requests.prefix_id, minlength=count) / n
    assert share == pytest.approx(weight / weight.sum(), abs=4 * np.sqrt(0.25 / n))
    firsts = [int(np.flatnonzero(requests.prefix_id == k)[0]) for k in range(count)]
    heads = np.concatenate([requests.prompt_ids(i)[:341] for i in firsts])
    assert len(np.unique(heads)) == 341 * count
    # Popularity is drawn apart from the lengths.
    plain = build(shipped("shared_prefix", num_requests=n))
    assert (plain.prompt_tokens == requests.prompt_tokens).all()


@pytest.fixture
def mooncake(tmp_path):
    # A root, a continuation, a sibling, the root again but cut inside its second block, another.
    rows = [
        (0, 1000, [0, 1]),
        (0, 2000, [0, 1, 2, 3]),
        (3000, 1600, [0, 1, 9, 10]),
        (3000, 700, [0, 1]),
        (6000, 512, [7]),
        (6000, 513, [7, 8]),
        (9000, 512, [7]),
    ]
    path = tmp_path / "moon.jsonl"
    path.write_text(
        "".join(
            json.dumps({"timestamp": t, "input_length": n, "output_length": 3, "hash_ids": ids})
            + "\n"
            for t, n, ids in rows
        )
    )
    return path


def test_a_small_trace_shares_what_it_should(mooncake):
    requests = read(mooncake)
    assert cached_tokens(requests, 512) == [0, 512, 1024, 512, 0, 512, 0]
    assert cached_tokens(requests, 1) == [0, 1000, 1024, 699, 0, 512, 511]
    assert cached_tokens(requests, 16) == [0, 992, 1024, 688, 0, 512, 496]


@pytest.mark.parametrize("block", [1, 5, 16, 100, 256, 512])
def test_an_allocator_hits_it_at_its_own_block_size(mooncake, block):
    requests = read(mooncake)
    assert cached_tokens(requests, block) == expected_tokens(requests, block)
    requests.concurrency = 1
    log = serve(requests, index="hash", pool_tokens=12_800, block_size=block)
    hits = log.timeline["hit_tokens"]
    assert hits[hits > 0].tolist() == [hit for hit in cached_tokens(requests, block) if hit]


@pytest.mark.shared_data
@pytest.mark.parametrize("block", [16, 64, 512, 700])
def test_the_first_requests_of_the_public_trace_share_the_same_at_any_block_size(
    shared_file, block
):
    requests = read(shared_file("mooncake/conversation_trace.jsonl.gz"), first=200)
    assert len(requests) == 200
    hits = cached_tokens(requests, block)
    assert hits == expected_tokens(requests, block)
    assert sum(hits) > 0
