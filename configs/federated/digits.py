"""FedAvg on 8 x 8 digits over ten clients of unequal data: the smallest federated run.

    eejax run configs/federated/digits.py
    eejax run configs/federated/digits.py --config.methods scaffold --config.rounds=20
    eejax run configs/federated/digits.py --config.methods fedavg scaffold --config.seeds 0 1 2

The last one compares two methods over three seeds.
"""

from eejax.experiment.runs.federated import Federated, run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Federated:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    return Federated(rounds=4 if arg == "tiny" else 50)
