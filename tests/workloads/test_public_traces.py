"""The public traces themselves, against the statistics published beside them."""

import numpy as np
import pytest

from workloads import LengthSpec, WorkloadSpec, build

pytestmark = pytest.mark.shared_data

# file, requests, mean prompt and output, longest prompt, seconds from first to last arrival
TRACES = [
    ("azure/AzureLLMInferenceTrace_conv.csv", 19_366, 1154.7, 211.1, 14_050, 3501.7),
    ("mooncake/conversation_trace.jsonl.gz", 12_031, 12_035.1, 342.6, 126_195, 3537.0),
    ("kv-cache-tester/traces", 3_981, 121_797, 454.6, None, None),
    (
        "sarathi-serve/sharegpt_8k_filtered_stats_llama2_tokenizer.csv",
        *(30_731, 2340.0, 438.7, 8141, 0.0),
    ),
    ("derived/alpaca_5000_llama2_lengths.csv", 5_000, 19.9, 65.6, 265, 0.0),
    ("derived/aibrix_8min_up_and_down_lengths.csv", 2_026, 293.6, 73.3, 2415, 455.9),
    ("vattention/arxiv_long_online.csv", 10_111, 29_567.5, 363.2, 45_819, 0.0),
    ("vattention/arxiv_long_offline.csv", 427, 87_426, 427.6, 192_786, 0.0),
    (
        "vidur/processed_traces/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv",
        *(28_257, 2588.1, 291.4, 4054, 0.0),
    ),
]


@pytest.mark.parametrize(
    ("name", "count", "prompt", "output", "longest", "span_s"), TRACES, ids=lambda v: str(v)[:24]
)
def test_counts_means_and_span(public_trace, name, count, prompt, output, longest, span_s):
    requests = public_trace(name)
    assert len(requests) == count
    digit = 0.51 if prompt == round(prompt) else 0.051
    assert requests.prompt_tokens.mean() == pytest.approx(prompt, abs=digit)
    assert requests.output_tokens.mean() == pytest.approx(output, abs=0.051)
    assert longest in (None, requests.prompt_tokens.max())
    assert (np.diff(requests.arrival_s) >= 0).all()
    if span_s is not None:
        assert requests.arrival_s[-1] == pytest.approx(span_s, abs=0.051)
        assert requests.timed == (span_s > 0)


def test_azure_gaps_vary_as_published(public_trace):
    gaps = np.diff(public_trace("azure/AzureLLMInferenceTrace_conv.csv").arrival_s)
    assert gaps.std() / gaps.mean() == pytest.approx(1.09, abs=0.005)


def test_mooncake_blocks_cover_their_prompts_and_first_blocks_are_shared(public_trace):
    requests = public_trace("mooncake/conversation_trace.jsonl.gz")
    blocks = np.array([len(ids) for ids in requests.hash_ids])
    assert (blocks == -(-requests.prompt_tokens // 512)).all()
    assert not requests.notes
    assert requests.prompt_ids(0)[511] == requests.prompt_ids(1)[511]
    assert requests.prompt_ids(0)[512] != requests.prompt_ids(1)[512]


def test_kv_cache_tester_blocks_are_whole_and_conversations_apart(public_trace):
    requests = public_trace("kv-cache-tester/traces")
    blocks = np.array([len(ids) for ids in requests.hash_ids])
    assert (blocks == requests.prompt_tokens // 64).all()
    owner = {}
    for name, ids in zip(requests.ids, requests.hash_ids, strict=True):
        document = name.split("/")[0]
        for value in ids[:1].tolist():
            assert owner.setdefault(value, document) == document
    assert len({name.split("/")[0] for name in requests.ids}) == 59


def test_first_requests_of_a_trace_at_another_rate(shared_file):
    path = str(shared_file("azure/AzureLLMInferenceTrace_conv.csv"))
    requests = build(WorkloadSpec(kind="trace", path=path, num_requests=1000, rate=20.0))
    assert list(requests.prompt_tokens[:2]) == [374, 396]
    assert requests.arrival_s[-1] == pytest.approx(50, rel=0.15)
    assert not requests.timed


def test_lengths_sampled_from_a_public_file(shared_file):
    path = str(shared_file("derived/alpaca_5000_llama2_lengths.csv"))
    lengths = LengthSpec("empirical", path=path)
    requests = build(WorkloadSpec(num_requests=50_000, prompt=lengths, output=lengths))
    assert requests.prompt_tokens.mean() == pytest.approx(19.89, rel=0.02)
    assert requests.output_tokens.mean() == pytest.approx(65.6, rel=0.02)
