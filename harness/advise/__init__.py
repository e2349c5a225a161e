"""Which settings sustain the most requests within limits on latency, and how sure that is.

python -m harness.advise +workload=sharegpt model=llama-3-8b hardware=h100-80gb slo.ttft_p99_s=1

The way of a question:

    options.parse -> Asked: limits, the options of a run, the budget, perhaps a rate to be carried
      -> space.Space: knobs of this configuration, what each may be; what the user typed is fixed
         -> race.Race: Settings race on one seed; a challenger runs only where the incumbent stops
         -> evidence.weigh: other seeds; a knob that is not worth more than noise goes back
         -> evidence.around: each other value of a knob, a little above and a little below
         -> sensitivity.ask: the same under another workload, another clock: does a choice flip?
         -> fleet.size: how many GPUs carry a given rate
      -> advice.Advice, filled as it goes: what Ctrl-C leaves is printed as well
      -> words (the paragraph), output (tables, advice.json), page (advice.html), flags

Runs are those of `harness.capacity`, made by its `Runner`: in processes beside each other, each
once and kept by its hash.  A *setting* is a value for some knobs, all others are at their default;
its *capacity* is the highest rate within the limits, and what is compared is requests a second and
GPU.  The seeds on which settings are chosen are not those on which they are weighed.
"""
