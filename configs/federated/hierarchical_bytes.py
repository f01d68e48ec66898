"""Hierarchical against flat training at equal bytes over the wide-area link.

    eejax run configs/federated/hierarchical_bytes.py

Twenty clients sit at four edge servers. In flat training every update goes on to the cloud;
edge servers send one mean each, the seldomer the larger ``k2`` is. The second table compares
accuracies at equal bytes to and from the cloud, time and energy.

Accuracy in % (mean of three seeds, lowest and highest) when 6.16 MB have crossed the wide-area
link: 75.6 (71.4 to 80.0) flat, 89.7 (88.9 to 90.3) with ``k2=1``, 94.4 (93.9 to 95.0) with
``k2=4``. At equal time (2.65 s): 90.1, 90.1 and 92.1.

References: Liu, Zhang, Song and Letaief, Client-Edge-Cloud Hierarchical Federated Learning, 2020.
"""

from eejax.experiment.runs.federated import Data, Federated, System, run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Federated:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    tiny = arg == "tiny"
    return Federated(
        methods=("fedavg", *(f"fedavg@hierarchical:k2={k2}" for k2 in ((2,) if tiny else (1, 4)))),
        seeds=(0,) if tiny else (0, 1, 2),
        rounds=2 if tiny else 40,
        report_every=1,
        epochs=1,
        data=Data(clients=20, partitions=("dirichlet:0.3",)),
        system=System(edges=4),
    )
