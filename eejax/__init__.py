"""eejax: end-edge-cloud collaborative deep learning in JAX.

A collaborative system is a topology, a model cut into stages, and knowledge that moves. Everything
that moves passes a codec and is counted. The rooms, from the ground up:

- ``core``, ``trees``: the contracts, and the one idiom for choosing parameters.
- ``tiers``, ``wire``, ``models``, ``data``: the elements.
- ``partition``, ``transfer``: the technologies.
- ``cotrain``, ``coinfer``, ``coupdate``: the three mechanisms.
- ``experiment``: configs, runs, checkpoints, reports, command line.
"""

__version__ = "0.1.0"
