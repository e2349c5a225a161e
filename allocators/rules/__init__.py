"""Rules over arrays, in the part of Python and NumPy that Numba compiles.

The allocators call them as they stand, which needs no Numba; the engine's compiled loop calls the
same functions compiled.  Each family has a module of equal function names, found by the type of
its arrays:

    lookup(arrays, request, tokens)         admit(arrays, row, ask)         grow(arrays, rows, n)
    release(arrays, row)                    preempt(arrays, row)            begin_step(arrays)
    usage(arrays, rows, finals)             cached_bytes(arrays)

They serve sequences that stand alone and share nothing but what a prompt was found to begin with:
whatever forks, copies on write or is swapped is the classes' own.
"""
