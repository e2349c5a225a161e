"""Rules over arrays, in the part of Python and NumPy that Numba compiles.

The allocators call them as they stand, which needs no Numba; the engine's compiled loop calls the
same functions compiled.  Each family has a module of equal function names, found by the type of
its arrays:

    lookup(arrays, request, tokens)                 admit(arrays, rows, ask)
    grow(arrays, rows, n, width)                    begin_step(arrays)
    fork(arrays, parent, children, ask)             reassign(arrays, rows, parents, width)
    release(arrays, row)                            preempt(arrays, row)
    distinct(arrays, rows)                          usage(arrays, rows, finals, width, ended)
    cached_bytes(arrays)                            sequences_held(arrays, prompt, output)

`width` is how many sequences each group has, a constant of a run.  With a prefix index it is one.
Whatever is swapped is the classes' own.
"""
