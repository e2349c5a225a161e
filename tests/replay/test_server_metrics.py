"""vLLM's `/metrics` beside the simulation's."""

import pytest

from harness.replay.errors import ReplayError
from harness.replay.run import replayed
from harness.replay.server_metrics import beside, read_metrics
from harness.replay.simulate import compose_replay, prepare_replay, simulate
from tests.replay.files import FILES, measured

SERVER = ("model=yi-6b", "hardware=a100-80gb")


def test_a_scrape_of_v1():
    found = read_metrics(FILES / "vllm_metrics.txt")
    assert (found.scrapes, found.kv_usage, found.running, found.waiting) == (
        1,
        [0.25],
        [2.0],
        [1.0],
    )
    assert found.preemptions == 0.0
    assert found.kv_tokens == 2588 * 16
    assert found.queue_s == pytest.approx(0.001 / 3)


def test_a_scrape_of_v0():
    found = read_metrics(FILES / "vllm_metrics_v0.txt")
    assert (found.kv_usage, found.running, found.waiting) == ([0.25], [2.0], [1.0])
    assert (found.preemptions, found.kv_tokens, found.queue_s) == (None, None, None)


def test_several_scrapes_of_several_engines(tmp_path):
    text = ""
    for scrape in range(3):
        for engine in "01":
            labels = f'{{engine="{engine}",model_name="m"}}'
            text += f"vllm:num_requests_running{labels} {scrape + 1}\n"
            text += f"vllm:kv_cache_usage_perc{labels} {0.1 * (scrape + int(engine))}\n"
            text += f"vllm:num_preemptions_total{labels} {100 + 7 * scrape}\n"
    path = tmp_path / "scrapes.txt"
    path.write_text(text)
    found = read_metrics(path)
    assert (found.scrapes, found.running) == (3, [2.0, 4.0, 6.0])
    assert found.kv_usage == pytest.approx([0.05, 0.15, 0.25])
    assert found.preemptions == 28.0  # both engines, from the first scrape to the last


def test_the_simulation_s_own_beside_it(tmp_path):
    run = measured("plain.csv")
    simulated = simulate(prepare_replay("x", run, compose_replay([*SERVER, "kv_tokens=64"])))
    rows = {
        row.name: row for row in beside(read_metrics(FILES / "vllm_metrics.txt"), simulated.log)
    }
    assert list(rows) == ["KV usage", "running", "waiting", "preemptions"]
    assert (rows["KV usage"].server_mean, rows["KV usage"].server_peak) == (25.0, 25.0)
    timeline = simulated.log.timeline
    held = timeline["blocks_in_use"] * 16 / 64 * 100
    assert rows["KV usage"].simulated_peak == pytest.approx(held.max())
    step_s = timeline["time_s"] - timeline["start_s"]
    end_s = timeline["time_s"][-1]
    assert rows["KV usage"].simulated_mean == pytest.approx(float((held * step_s).sum()) / end_s)
    ran_s = float((simulated.e2e_s - simulated.queue_s).sum())
    assert rows["running"].simulated_mean == pytest.approx(ran_s / end_s)


def test_another_pool_is_said_and_the_server_s_queue_taken():
    run = measured("plain.csv")
    prepared = prepare_replay("x", run, compose_replay([*SERVER, "kv_tokens=64"]))
    found = replayed("x", run, prepared, read_metrics(FILES / "vllm_metrics.txt"))
    assert any(note.endswith("kv_tokens=41408 takes the server's") for note in found.notes)
    assert found.parts[0].name == "queueing"
    assert found.parts[0].measured_s == pytest.approx(0.001 / 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"hello\n", ":1: not a line of Prometheus text"),
        (b"# a comment\nup 1\n", "has no metric of vLLM"),
        (b"vllm:num_requests_running{a=} x\n", ":1: not a line"),
    ],
)
def test_a_file_that_is_none(tmp_path, content, said):
    path = tmp_path / "metrics.txt"
    path.write_bytes(content)
    with pytest.raises(ReplayError, match=said) as refused:
        read_metrics(path)
    assert "\n" not in str(refused.value)
