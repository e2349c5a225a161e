"""What is derived from a kept configuration is what Hydra composes, errors included."""

import pytest
from omegaconf import OmegaConf

from harness.comparison import compose, config
from harness.comparison.config import to_config

CHAT = "+workload=sharegpt"
#: overrides of each kind, in orders that matter
COMPOSED = (
    (CHAT,),
    ("workload.num_requests=3",),
    (CHAT, "workload=beam"),
    (CHAT, "seed=5", "kv_tokens=null", "report=none", "engine.max_len='5'"),
    ("workload.num_requests=3", CHAT, "model=opt-13b", "hardware=a100-80gb", "hardware.count=2"),
    (CHAT, "workload.prompt={kind: fixed, value: 9}", "workload.prompt.value=3"),
    (CHAT, "workload.prompt.value=3", "workload.prompt={kind: fixed, value: 9}"),
    (CHAT, "engine=chunked", "engine={policy: orca}", "allocators.paged.block_size=4"),
    (CHAT, "allocator=[]", "+allocators.x={_target_: a.B, c: hash}", "allocators.x.c=radix"),
    (CHAT, "cost_model.map_us={64KiB: 2}", "workload.path='/a b/x.csv'"),
    ("+experiment=ci", CHAT, "seed=1"),
    (CHAT, "~slo"),
    (CHAT, "++seed=3"),
    (CHAT, "hydra.run.dir=x"),
    (CHAT, "hydra.sweep.dir=x", "workload.num_requests=5", "hydra.run.dir='a=b'", "kv_tokens=7"),
    (CHAT, "hydra.job.chdir=true", "hydra.job.config.override_dirname.kv_sep=_"),
    (CHAT, "hydra/launcher=basic", "hydra.launcher._target_=x"),
    (CHAT, "software=vllm-v1", "software.step_us=3"),
)
REFUSED = (
    (CHAT, "engine.nope=4"),
    (CHAT, "model=nope"),
    (CHAT, "seed=1,2"),
    (CHAT, "seed=[1"),
    (CHAT, "seed"),
    (CHAT, "+seed=3"),
    (CHAT, "engine=null"),
    (CHAT, "engine/x=5"),
    (CHAT, "engine@x=orca"),
)
#: values that Hydra has not seen, as a sweep or a file of options may bring them
UNTYPED = ("seed=abc", "engine.max_len=1.5", "engine.nope=1", "slo=5", "nope=1", "kv_tokens=[1]")


def outcome(make):
    try:
        made = make()
    except Exception as error:
        return type(error), str(error)
    if not OmegaConf.is_config(made):
        return made
    return OmegaConf.to_yaml(made), OmegaConf.is_struct(made), OmegaConf.is_readonly(made)


@pytest.mark.parametrize("overrides", COMPOSED + REFUSED, ids=" ".join)
def test_a_configuration_is_the_one_that_hydra_composes(overrides, tmp_path, monkeypatch):
    outcome(lambda: compose(*overrides, with_hydra=True))
    monkeypatch.chdir(tmp_path)  # which Hydra notes
    found = outcome(lambda: compose(*overrides, with_hydra=True))
    assert found == outcome(lambda: config._composed(overrides, with_hydra=True))
    assert isinstance(found[0], type) == (overrides in REFUSED)


@pytest.mark.parametrize("overrides", COMPOSED[4:12:3] + REFUSED[:1], ids=" ".join)
def test_so_it_is_without_the_settings_of_hydra(overrides):
    expected = outcome(lambda: config._composed(overrides, with_hydra=False))
    assert [outcome(lambda: compose(*overrides)) for _ in range(2)] == [expected] * 2


def test_one_that_is_changed_leaves_the_next_as_it_was():
    first = compose(CHAT)
    first.engine.max_len = 7
    first.allocators.paged.block_size = 99
    assert compose(CHAT).engine.max_len != 7
    assert compose(CHAT).allocators.paged.block_size != 99
    typed = to_config(first)
    typed.allocators["paged"]["block_size"], typed.engine.max_len = 1, 1
    assert to_config(first).allocators["paged"]["block_size"] == 99
    assert to_config(first).engine.max_len == 7


def test_files_are_read_once_for_each_choice_of_them(monkeypatch):
    read = []
    monkeypatch.setattr(config, "_composed", lambda *a, **k: read.append(a) or first.copy())
    config._with_files.cache_clear()
    first = OmegaConf.create({"seed": 0, "kv_tokens": None})
    assert [compose(CHAT, f"seed={seed}").seed for seed in range(4)] == [0, 1, 2, 3]
    assert len(read) == 1
    compose(CHAT, "model=opt-13b")
    assert len(read) == 2
    config._with_files.cache_clear()


@pytest.mark.parametrize("line", ["", *UNTYPED])
@pytest.mark.parametrize("overrides", COMPOSED[3:8:4], ids=" ".join)
def test_sections_typed_one_by_one_are_those_typed_together(monkeypatch, overrides, line):
    composed = OmegaConf.create(OmegaConf.to_container(compose(*overrides)))
    composed.merge_with_dotlist([line] if line else [])
    found = [outcome(lambda: to_config(composed)) for _ in range(2)]

    def refuse(name, part):
        raise config.OmegaConfBaseException

    monkeypatch.setattr(config, "_typed", refuse)
    assert found == [outcome(lambda: to_config(composed))] * 2
    assert isinstance(found[0], tuple) == bool(line)
