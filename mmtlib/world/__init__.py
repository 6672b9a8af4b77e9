"""How the embedded world is drawn: its dials, its people, their walk, their places, their cameras.

`mmtlib.pedestrians` is what the rest of the library uses of it.
"""
