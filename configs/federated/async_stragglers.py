"""Asynchronous against synchronous training when a fifth of the clients takes ten times as long.

    eejax run configs/federated/async_stragglers.py

All methods stop after the same modelled time. The synchronous server waits for the slowest client,
the semi-synchronous one drops whoever misses the deadline, FedAsync and FedBuff take updates as
they come. The second table compares accuracies at equal time, energy and bytes.

Accuracy in % (mean of three seeds, lowest and highest) at equal cost; 15 s are 45 rounds of the
synchronous server:

============= =================== =================== ===================
method        14.7 s              1.49 kJ             69 MB
============= =================== =================== ===================
synchronous   92.7 (91.9 to 94.2) 92.9 (92.2 to 94.2) 92.9 (92.2 to 94.2)
deadline      93.6 (91.7 to 95.3) 92.8 (91.4 to 93.9) 91.9 (91.1 to 92.2)
FedBuff       96.8 (96.4 to 97.2) 95.1 (93.6 to 96.1) 93.2 (92.5 to 93.9)
FedAsync      95.5 (95.3 to 95.8) 91.9 (90.6 to 93.1) 90.7 (89.2 to 92.2)
============= =================== =================== ===================

Asynchrony buys time with messages: nobody waits, so four times as many bytes flow.

References: Xie, Koyejo and Gupta, Asynchronous Federated Optimization, 2019. Nguyen et al.,
Federated Learning with Buffered Asynchronous Aggregation, 2022. Bonawitz et al., Towards Federated
Learning at Scale: System Design, 2019.
"""

from eejax.experiment.runs.federated import Data, Federated, System, run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Federated:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    tiny = arg == "tiny"
    return Federated(
        methods=(
            "fedavg", "fedavg@semi:deadline_s=0.2", "fedavg@fedbuff:size=5", "fedavg@fedasync",
        ),
        seeds=(0,) if tiny else (0, 1, 2),
        rounds=4 if tiny else 400,
        seconds=1.0 if tiny else 15.0,
        report_every=2 if tiny else 1,
        epochs=0,
        steps=20,
        data=Data(clients=10 if tiny else 20, partitions=("dirichlet:0.3",)),
        system=System(slow=0.2, slowdown=10.0, jitter=0.1),
    )  # fmt: skip
