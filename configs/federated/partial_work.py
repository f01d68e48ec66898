"""Partial work: nine of ten clients cannot finish, and FedAvg throws away what they did.

    eejax run configs/federated/partial_work.py

Stragglers of a round do a random number of their local epochs. A server that waits for whole work
drops them (``drop=1``); FedProx takes what they did and holds them near the global model.

Accuracy in % after 50 rounds on the test split, mean of three seeds, lowest and highest: FedAvg
that drops stragglers 44.1 (23.9 to 59.2), FedAvg that takes partial work 91.4 (89.7 to 92.5),
FedProx 90.6 (89.4 to 91.7) with mu = 0.1 and 88.6 (87.8 to 89.4) with mu = 1, FedNova 91.1 (89.2 to
93.6). So taking partial work is what gains 47 points; the proximal term adds nothing here.

References: Li et al., Federated Optimization in Heterogeneous Networks, 2020.
"""

from eejax.experiment.runs.federated import Data, Federated, run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Federated:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    tiny = arg == "tiny"
    methods = ("fedavg@flat:drop=1", "fedavg", "fedprox:mu=0.1", "fedprox:mu=1", "fednova")
    return Federated(
        methods=methods[:3] if tiny else methods,
        seeds=(0,) if tiny else (0, 1, 2),
        rounds=2 if tiny else 50,
        report_every=1 if tiny else 2,
        epochs=10,
        stragglers=0.9,
        data=Data(partitions=("classes:2",)),
    )
