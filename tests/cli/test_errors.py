"""Bad input gets one clear line, status 2, and nothing is written."""

import pytest

from harness.cli.checks import check
from harness.cli.points import Points


def problem_of(arguments):
    problem, _ = check(arguments, Points())
    return problem


TINY = ["+workload=uniform", "workload.num_requests=4", "allocator=[paged]"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


CASES = [
    (["+workload=bem"], "did you mean beam?"),
    (["workload=beam"], "+workload=NAME"),
    (["allocators.paged.blok_size=3"], "did you mean allocators.paged.block_size"),
    (["allocators.paged.block_size=0"], "block_size must be a whole number from 1 to 512, got 0"),
    (["allocators.paged.block_size=-4"], "got -4"),
    (["allocators.paged.block_size=big"], "got 'big'"),
    (["allocators.paged.watermark=nan"], "watermark"),
    (["allocator=[pagd]"], "did you mean paged?"),
    (["allocator=[virtual]", "allocators.virtual.page_size=3MiB"], "64KiB, 128KiB, 256KiB, 2MiB"),
    (["model=opt-31b"], "did you mean opt-13b"),
    (["model=opt-175b"], "hardware.count=10"),
    (["hardware=a100"], "a100-40gb"),
    (["hardware=H100"], "hardware=H100: no such option (did you mean h100-80gb?)"),
    (
        ["allocator=[paged,paged64]", "+allocators.paged64={_target_: allocators.paged.Paged}"],
        "paged64 is compared already: +allocators.paged64=... adds it",
    ),
    (["allocator=[paged,paged64]"], "allocator=paged64: no such option"),
    (["engine=dynamic"], "continuous, "),
    (["engine.max_num_seq=3"], "did you mean engine.max_num_seqs"),
    (["workload.rate=-1"], "workload.rate=-1"),
    (["workload.rate=nan"], "workload.rate=nan"),
    (["workload.rate=fast"], "'fast'"),
    (["workload.num_requests=0"], "workload.num_requests=0"),
    (["workload.num_requests=2147483647"], "expected a finite number >= 1 and <= 10000000"),
    (["engine.max_len=1000000000"], "engine.max_len must be at most 16777216, got 1000000000"),
    (["engine.max_len=16777216", "model=yi-6b"], "lower one of them"),
    (["model=llama-4-scout"], "the context of Llama-4-Scout, need block tables for 2684354560 "),
    (["model=llama-4-scout"], "as engine.max_len=8388608 or less does"),
    (["model=gpt-oss-20b", "harness.memory_map=0:9"], "the layer groups of gpt-oss-20b differ"),
    (["engine.max_num_seqs=2147483647"], "engine.max_num_seqs must be at most 65536"),
    (["harness.variant_timeout_s=0"], "harness.variant_timeout_s must be a positive number"),
    (
        ["cost_model.map_us={3MiB: 1}"],
        "cost_model.map_us has no 3MiB, it has 64KiB, 128KiB, 256KiB, 2MiB; write +cost_model."
        "map_us={3MiB: 1}",
    ),
    (["+cost_model.map_us={3MiB: 1}"], "page size '3MiB' is not a power of two"),
    (["+allocators.x={_target_: builtins.dict}"], "builtins.dict is no allocator"),
    (["workload.path=missing.csv"], "missing.csv"),
    (["workload.columns={arrival: x}"], "workload.columns is for traces, set workload.path"),
    (["workload.columns={when: x}"], "a name that it does not have; there are workload.columns.ar"),
    (["engine.max_len=100"], "workload.too_long=skip"),
    (["engine.max_len=0"], "engine.max_len must be at least 1"),
    (["kv_tokens=10"], "alone fills"),
    (["kv_tokens=-1"], "kv_tokens must be at least 1"),
    (["kv_memory_gib=nan"], "kv_memory_gib must be a positive number"),
    (["kv_memory_gib=1", "kv_tokens=5000"], "not both"),
    (["sampling.mode=best"], "greedy, parallel, beam"),
    (["sampling.mode=beam", "sampling.beam_switch=1.5"], "at least 0 and at most 1, got 1.5"),
    (["sampling.mode=beam", "engine.max_num_seqs=2"], "engine.max_num_seqs=2"),
    (["seed=-1"], "seed must be at least 0"),
    (["seed=x"], "seed=x"),
    (["sweep.resume=true"], "sweep.resume and sweep.maximize are options of -m"),
    (["sweep.maximise=x"], "did you mean sweep.maximize"),
    (["out=here"], "unknown option out: give hydra.run.dir=DIR"),
    (["+nonsense=1"], "unknown option nonsense"),
    (["+workload.nonsense=1"], "unknown option workload.nonsense"),
    (["+engine.nonsense=1"], "unknown option engine.nonsense"),
    (["+allocators.x={_target_: no.such.Class}"], "no allocator class"),
    (["allocators.paged.block_size=8,16"], "add -m"),
    (["hydra.run.dir=/dev/null/run"], "/dev/null/run"),
    (["hydra.sweep.dir=s"], "hydra.sweep.dir is the folder of a sweep, and this is a single run"),
    (["-m", "seed=1,2", "hydra.run.dir=r"], "and this is a sweep: hydra.sweep.dir=DIR says where"),
    (["+experiment=hybrid", "hydra.run.dir=r"], "hydra.run.dir is the folder of a single run"),
    (["allocator=null"], "leaves allocator out; choose one of contiguous_grow, "),
    (["~model"], "~model leaves model out; choose one of "),
    *(
        ([f"{group}=null"], f"{group}=null leaves {group} out; choose one of ")
        for group in ("model", "hardware", "engine", "executor", "cost_model", "workload")
    ),
    *(
        ([f"{group}=null"], f"'{group}' is not Optional")
        for group in ("harness", "sampling", "allocators")
    ),
    (["allocators.paged=null"], "allocators.paged must be its class and knobs, {_target_: "),
    (["+allocators.x=5"], "allocators.x must be its class and knobs"),
    (["+allocators.x={block_size: 5}"], "allocators.x must be its class and knobs"),
    (["cost_model.map_us={3MiB: 1}", "cost_model.map_us={4MiB: 1}"], "has no "),
    (["workload.name=../../x"], "workload.name is part of a directory's name"),
]


@pytest.mark.parametrize(("overrides", "expected"), CASES, ids=lambda x: str(x)[:50])
def test_bad_input_is_one_clear_line(overrides, expected, tmp_path):
    arguments = [
        *(TINY if not overrides[0].lstrip("+").startswith("workload=") else []),
        *overrides,
    ]
    problem = problem_of(arguments)
    assert problem is not None
    assert expected in problem
    assert "\n" not in problem
    assert not list(tmp_path.iterdir()), "something was written"


def test_no_workload_lists_the_choices():
    problem = problem_of([])
    for name in ("beam", "parallel", "sharegpt", "alpaca", "uniform", "shared_prefix", "trace"):
        assert f"  {name} " in problem
    assert "+workload=" in problem


def test_a_bad_point_of_a_sweep_is_found_before_the_first_runs(tmp_path):
    problem = problem_of(["-m", *TINY, "allocators.paged.block_size=8,0"])
    assert "got 0" in problem
    assert not list(tmp_path.iterdir())


def test_an_existing_run_directory_is_refused(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "summary.json").write_text("{}")
    problem = problem_of([*TINY, f"hydra.run.dir={tmp_path}/old"])
    assert "not empty" in problem
    assert (tmp_path / "old" / "summary.json").read_text() == "{}"


def test_a_malformed_trace_names_file_and_line(tmp_path):
    trace = tmp_path / "t.csv"
    trace.write_text("num_prefill_tokens,num_decode_tokens\n5,6\n7,oops\n")
    problem = problem_of(["+workload=trace", f"workload.path={trace}"])
    assert f"{trace}:3" in problem
