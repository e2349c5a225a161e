"""What the command says about itself: the help text and the list of workloads."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from harness.cli.installed import installed_allocators

HELP = """\
Compare KV-cache memory managers on the same requests, behind one serving engine.

  python -m harness +workload=NAME [OPTION=VALUE ...]
  python -m harness -m +workload=NAME OPTION=V1,V2 ...     sweep, one combined table

Workloads
{workloads}

Options
  allocator='[A,B]'         which to compare: {allocators}
  allocators.NAME.KNOB=V    a knob of one: allocators.paged.block_size=32
  model=NAME                {models}
  model.path=config.json    of model=hf: a model from its file on Hugging Face (docs/size.md)
  hardware=NAME             {hardware}
  hardware.count=N          GPUs that serve the model together (tensor parallelism)
  memory=NAME               server that sizes the pool: {memories}
  engine=NAME               {engines}
  executor=model            real tokens on real memory, on this CPU or GPU (docs/executor.md)
  executor.weights=DIR      of a local checkpoint (config.json, *.safetensors); else random
  software=NAME             the serving stack's time: {software} (docs/software.md)
  cost_model=calibrated     times measured on your machine: cost_model.file=FILE (docs/cost.md)
  engine.max_len=N          longest sequence in tokens (default: the model's context)
  engine.max_num_seqs=N     engine.max_num_batched_tokens=N
  kv_memory_gib=X           size of the KV pool, or kv_tokens=N; default: what the GPU leaves
  kv_dtype=fp8              what the KV is stored in, apart from the weights (docs/cost.md)
  engine.preemption=P       recompute or swap
  sampling.mode=MODE        greedy, parallel (sampling.n=N), beam (sampling.width=K), speculative
  workload.num_requests=N   workload.rate=R|inf   workload.path=FILE   workload.format=FORMAT
  workload.columns={{arrival: A, prompt: B, output: C}}   of your own CSV (docs/workloads.md)
  workload.too_long=W       error, skip or truncate
  seed=N                    hydra.run.dir=DIR   report=none (no report.html, report.md)
  timeline=full             every step in timeline.parquet, not bins beyond 100,000 steps
  slo.ttft_s=X  slo.itl_s=X  slo.tpot_s=X  slo.e2e_s=X   limits of a good request: goodput
  harness.memory_map=A:B    shows who holds which memory in steps A to B; harness.trace=chrome
  harness.export=vllm       writes the fields of vllm bench serve, which its scripts plot
  harness.variant_timeout_s=X   ends an allocator that takes longer, in a row that says so
  hydra/launcher=joblib     a sweep on all cores; or ray, submitit_slurm (docs/sweeps.md)
  sweep.resume=true         runs what is missing or failed in hydra.sweep.dir=DIR
  sweep.maximize=METRIC     names the best row; hydra/sweeper=optuna searches for it
  sweep.at_most={{METRIC: VALUE}}   limits that the best row keeps
  +experiment=ci            a fixed suite of comparisons, instead of a workload (docs/ci.md)
  +experiment=hybrid        every manager of layers that keep different KV (docs/hybrid.md)
  +experiment=FIGURE        published beside ours: {figures}, or all (docs/validation.md)

Tab completion in bash: source <(python -m harness --completion), or kv-harness --completion
--cfg job prints the whole configuration; --hydra-help describes Hydra's own options.
"""


def groups() -> list[str]:
    """Return the names of the groups of options, sorted."""
    return sorted(f.name for f in files("conf").iterdir() if f.is_dir() and f.name[0] != "_")


def options(group: str) -> list[str]:
    """Return the names of a group's options, sorted; of `allocator` with the installed ones."""
    folder = files("conf") / group
    own = {f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml"}
    return sorted(own.union(installed_allocators() if group == "allocator" else ()))


def published() -> list[str]:
    """Return the names of published figures: all experiments but those that are sweeps of ours."""
    return [name for name in options("experiment") if name not in ("all", "ci", "hybrid")]


def workload_lines() -> Iterator[str]:
    """Yield a line for each workload: its name and its own description."""
    for name in options("workload"):
        text = (files("conf") / "workload" / f"{name}.yaml").read_text(encoding="utf-8")
        lines = (line.strip() for line in text.splitlines())
        about = next((x for x in lines if x.startswith("description:")), "description:")
        yield f"  {name:<15}{about.removeprefix('description:').strip()}"


def print_help() -> None:
    print(
        HELP.format(
            workloads="\n".join(workload_lines()),
            allocators=_wrapped(options("allocator")),
            models=_wrapped(options("model")),
            hardware=_wrapped(options("hardware")),
            memories=", ".join(options("memory")),
            figures=_wrapped(published()),
            engines=", ".join(options("engine")),
            software=", ".join(options("software")),
        ),
        end="",
    )


def choose_workload() -> str:
    """Return what to say when no workload is given."""
    lines = "\n".join(workload_lines())
    return f"error: choose a workload with +workload=NAME\n{lines}\nexample: +workload=beam"


def _wrapped(names: list[str]) -> str:
    import textwrap

    return ("\n" + " " * 28).join(textwrap.wrap(", ".join(names), 70, break_on_hyphens=False))
