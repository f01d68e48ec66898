"""Adaptive optimisers at the server, where every client knows two classes of ten.

    eejax run configs/federated/adaptive.py

Learning rates of the clients are tuned for each method by the same budget; those of the servers
are given.

Accuracy in % after 50 rounds on the test split, mean of three seeds, lowest and highest, and the
round at which 90 % are reached by each:

=========== =================== ========== =============
method      accuracy            rounds     learning rate
=========== =================== ========== =============
FedAvg      95.1 (94.7 to 95.8) 32, 20, 22 0.8
FedAvgM     96.3 (95.8 to 96.9) 12, 18, 18 0.4
FedAdagrad  97.5 (97.2 to 97.8) 14, 10, 18 0.1
FedAdam     97.1 (96.7 to 97.8) 10, 12, 12 0.4
FedYogi     97.3 (96.9 to 97.5) 12, 12, 12 0.2
=========== =================== ========== =============

References: Reddi et al., Adaptive Federated Optimization, 2021.
"""

from eejax.experiment.runs.federated import Data, Federated, run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Federated:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    tiny = arg == "tiny"
    methods = (
        "fedavg", "fedavgm:server_lr=0.3", "fedadagrad:server_lr=0.1", "fedadam:server_lr=0.03",
        "fedyogi:server_lr=0.03",
    )  # fmt: skip
    return Federated(
        methods=methods[:1] + methods[-1:] if tiny else methods,
        seeds=(0,) if tiny else (0, 1, 2),
        rounds=2 if tiny else 50,
        report_every=1 if tiny else 2,
        rates=(0.05, 0.1) if tiny else (0.1, 0.2, 0.4, 0.8),
        data=Data(partitions=("classes:2",)),
    )
