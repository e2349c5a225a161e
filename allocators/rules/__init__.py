"""Rules over arrays, in the part of Python and NumPy that Numba compiles.

The allocators call them as they stand, which needs no Numba; the engine's compiled loop calls the
same functions compiled.  Each family has a module of equal function names, found by the type of
its arrays:

    admit(arrays, row, ask)         grow(arrays, rows, n)           begin_step(arrays)
    release(arrays, row)            preempt(arrays, row)            usage(arrays, rows, finals)
    cached_bytes(arrays)

They serve sequences that stand alone and share nothing: whatever forks, copies on write, is swapped
or looked up is the classes' own.
"""
