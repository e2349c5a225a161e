"""RequestTable: prompt identities, too long requests, names."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import RequestTable, WorkloadError, unique_ids


def table(prompt, output, **columns):
    n = len(prompt)
    return RequestTable(np.arange(n, dtype=float), np.array(prompt), np.array(output), **columns)


def arrays(*lists):
    return [np.array(values, dtype=np.int64) for values in lists]


def test_no_identity_is_known_of_plain_lengths():
    assert table([3], [1]).prompt_ids(0) is None


def test_real_tokens_are_their_own_identity():
    requests = table([2], [1], token_ids=arrays([7, 7, 9]))
    assert list(requests.prompt_ids(0)) == [7, 7]


def test_block_ids_expand_and_the_tail_is_unique():
    requests = table([5, 7], [1, 1], hash_ids=arrays([3, 8], [3]), hash_block_tokens=4)
    assert list(requests.prompt_ids(0)) == [12, 13, 14, 15, 32]
    second = requests.prompt_ids(1)
    assert list(second[:4]) == [12, 13, 14, 15]
    assert (second[4:] < 0).all()
    assert list(second[4:]) == list(unique_ids(1, 4, 7))


def test_a_shared_prefix_comes_first_and_the_rest_is_unique():
    requests = table([5, 5, 2], [1, 1, 1], prefix_id=np.array([1, 1, 0]), prefix_tokens=3)
    a, b, c = (requests.prompt_ids(i) for i in range(3))
    assert list(a[:3]) == list(b[:3]) == [3, 4, 5]
    assert list(c) == [0, 1]
    assert len({*a[3:], *b[3:]}) == 4


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_identities_are_equal_only_where_blocks_are(data):
    block = data.draw(st.integers(1, 5))
    ids = data.draw(st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=2, max_size=2))
    prompt = [max(1, len(x) * block + data.draw(st.integers(-block + 1, block))) for x in ids]
    requests = table(prompt, [1, 1], hash_ids=arrays(*ids), hash_block_tokens=block)
    a, b = requests.prompt_ids(0), requests.prompt_ids(1)
    assert (len(a), len(b)) == tuple(prompt)
    for position in range(min(prompt)):
        known = position // block < min(len(ids[0]), len(ids[1]))
        same = known and ids[0][position // block] == ids[1][position // block]
        assert (a[position] == b[position]) == same


def test_names_are_ids_or_indices():
    assert table([1], [1]).name(0) == "0"
    assert table([1], [1], ids=["chat-9"]).name(0) == "chat-9"


def test_too_long_error_names_the_first_and_the_count():
    requests = table([5, 90, 80], [5, 20, 30], ids=["a", "b", "c"])
    with pytest.raises(WorkloadError) as caught:
        requests.limit(100)
    assert str(caught.value) == (
        "2 of 3 requests are longer than max_len=100 tokens; the first is request 'b': prompt 90 "
        "+ output 20 = 110; raise engine.max_len, or set workload.too_long=skip or "
        "workload.too_long=truncate"
    )


def test_too_long_skip_drops_every_column_of_the_request():
    requests = table([5, 90, 80], [5, 20, 3], ids=["a", "b", "c"], token_ids=arrays([1], [2], [3]))
    kept = requests.limit(100, "skip")
    assert kept.ids == ["a", "c"]
    assert list(kept.arrival_s) == [0.0, 2.0]
    assert [list(ids) for ids in kept.token_ids] == [[1], [3]]
    assert kept.notes == ["1 of 3 requests longer than max_len=100 tokens were skipped"]
    assert requests.notes == []
    with pytest.raises(WorkloadError, match="leaves no request"):
        requests.limit(2, "skip")


def test_too_long_truncate_cuts_the_end_of_the_prompt_and_keeps_the_output():
    requests = table([5, 90, 3], [5, 20, 300], prefix_id=np.zeros(3, int), prefix_tokens=4)
    cut = requests.limit(100, "truncate")
    assert list(cut.prompt_tokens) == [5, 80, 1]
    assert list(cut.output_tokens) == [5, 20, 99]
    assert cut.notes == [
        "2 of 3 requests longer than max_len=100 tokens were cut to it, by 213 tokens in all"
    ]
    assert list(cut.prompt_ids(1)) == list(requests.prompt_ids(1)[:80])


def test_a_table_that_fits_is_left_alone():
    requests = table([50], [50])
    assert requests.limit(100, "error") is requests


def test_bad_limits_are_refused():
    with pytest.raises(WorkloadError, match="did you mean skip"):
        table([1], [1]).limit(100, "skp")
    with pytest.raises(WorkloadError, match="max_len=1 "):
        table([1], [1]).limit(1)
