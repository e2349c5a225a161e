"""The hit rate of a trace against the capacity of a prefix cache.

python -m harness.hitcurve workload.path=FILE capacities=[1000,10000] policies=[lru,s3fifo]
"""
