"""What a model takes and what fits beside it: the memory budget of a server, without a run.

    options.parse -> Asked -> budget.size -> Sized, by the functions that size a run's pool
      -> output: tables, or JSON

From Python:

    sized = size(parse(["model=gpt-oss-20b", "hardware=h100-80gb"]))
    [(row.gpus, row.kv_dtype, fit.tokens, fit.sequences) for row in sized.rows for fit in row.fits]
"""
