"""A runner that makes runs in this process, each once; and a search without what follows it."""

from harness.advise.evidence import Weighed, weigh
from harness.advise.options import parse
from harness.advise.race import Clock, Race, Ring
from harness.advise.space import space_of
from harness.capacity.probe import observe
from tests.capacity.single import drive

#: small and quick: fixed lengths, forty requests, three seeds
SMALL = ("engine.compiled=off", "model=opt-13b", "requests=40", "seeds=3", "at_least=0.05")


def fixed(prompt, output):
    """Return the options of a workload with lengths of which there is one."""
    return (
        *("+workload=uniform", "workload.prompt.kind=fixed", "workload.output.kind=fixed"),
        *(f"workload.prompt.value={prompt}", f"workload.output.value={output}"),
    )


class Inside:
    """What `harness.capacity.runner.Runner` is, without processes."""

    def __init__(self, see=observe):
        self._see, self._seen = see, {}
        self.runs = self.kept_runs = 0

    def observe(self, probes):
        return [self._one(probe) for probe in probes]

    def run(self, searches, found=None):
        return [drive(search, self._one) for search in searches]

    def _one(self, probe):
        if probe not in self._seen:
            self._seen[probe] = self._see(probe)
            self.runs += 1
        return self._seen[probe]


def ring_of(*arguments, see=observe):
    """Return the ring of a question, and what was asked."""
    asked = parse(arguments)
    options = asked.options
    space = space_of(asked.run, options.search, options.kv_dtypes)
    requests = options.requests
    return Ring(space, asked.limits, Inside(see), options.at_least, requests or 0, requests), asked


def weighed(*arguments, see=observe):
    """Search and weigh; return the ring, the best of the search, and what may be advised."""
    ring, asked = ring_of(*arguments, see=see)
    best = Race(ring, Clock(1e9), lambda line: None, []).run()
    found = Weighed(best.setting)
    weigh(ring, found, best.per_gpu, asked.options.seeds, lambda line: None)
    return ring, best, found
