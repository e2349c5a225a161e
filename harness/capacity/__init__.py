"""The highest rate of requests that each allocator sustains within limits on latency.

python -m harness.capacity +workload=sharegpt model=llama-3-8b slo.ttft_p99_s=1 slo.tpot_p99_s=0.05

The way of a question:

    options.parse -> slo.Limits, and the options of a run
      -> question.variants_of -> Variant: the options of a run with one allocator, checked
         -> search.find -> asks for Probes (variant, rate, seed, requests), is sent Observations
              ^  runner.Runner: probes in processes beside each other; kept.Kept: each by its hash
              |    -> probe.observe: one run; watch.Watch looks on, and stops what diverges;
              |       stationary.warm_up and stationary.grows judge it
            -> search.Capacity: a rate and its observation for each seed, or why there is none
      -> answer.Answer: rate and interval, ratios, tokens/s and price a GPU, curves
         -> output (table, capacity.json), figure (capacity.png), page (capacity.html)

A *rate* is `workload.rate`: requests, or conversations, that arrive a second; a trace is stretched
in time to it.  A *replication* is a seed: lengths, gaps and draws.  All rates of one seed have the
same requests and the same gaps but for their scale, for every allocator (common random numbers).

From Python:

    with Runner(jobs=2) as runner:
        variants = variants_of(["+workload=sharegpt", "allocator=[paged,virtual]"])
        found = runner.run([find(variant, Limits({"ttft_p99_s": 1.0})) for variant in variants])
        [capacity.rate for capacity in found]             # requests/s; None beside a reason
        runner.observe([Probe(variants[0], rate=2.0, seed=0, requests=2000)])  # single runs
"""
