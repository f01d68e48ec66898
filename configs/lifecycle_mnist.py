"""The life cycle of a three-exit CNN on real MNIST digits, over 8 end devices, 2 edges and a cloud.

eejax run configs/lifecycle_mnist.py
"""

from eejax.experiment.runs.lifecycle import Lifecycle, run, tiny

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Lifecycle:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    return tiny() if arg == "tiny" else Lifecycle()
