"""Training without a server: neighbours mix their models, on three graphs, beside two servers.

    eejax run configs/federated/gossip.py
    eejax run configs/federated/gossip.py --config.data.partitions classes:2

Ten clients, 50 rounds of two local epochs; accuracy in %, mean of three seeds (lowest to highest),
of gossip the mean over the clients' own models. Seconds and bytes are modelled, those of Dir(0.5):

====================  ===================  ===================  ======  ======
who mixes             Dir(0.5)             2 classes a client   s       MB
====================  ===================  ===================  ======  ======
a server              94.6 (93.6 to 95.6)  91.0 (90.3 to 92.2)  4.3     38.5
edge servers, cloud   94.6 (93.6 to 95.6)  91.0 (90.3 to 92.2)  4.3     23.1
neighbours, ring      92.9 (91.6 to 94.0)  67.4 (60.3 to 73.3)  4.6     26.9
neighbours, star      88.4 (86.9 to 91.0)  26.8 (26.3 to 27.8)  18.5    36.6
everybody             94.2 (93.6 to 94.4)  90.9 (90.0 to 92.2)  19.3    182.8
====================  ===================  ===================  ======  ======

Without a server nothing goes to the cloud; but models that differ much need many rounds to mix, and
where every client has two classes each knows little but its own. A star is the worst: its centre
sends to all, one after the other, and by the weights of `metropolis` every other client keeps nine
tenths of its own model. Edge servers below the cloud (k2 = 1) make the same model as one server
with fewer bytes.

References: Lian et al., Can Decentralized Algorithms Outperform Centralized Algorithms? A Case
Study for Decentralized Parallel Stochastic Gradient Descent, 2017.
"""

from eejax.experiment.runs.federated import Data, Federated, run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Federated:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    tiny = arg == "tiny"
    graphs = ("ring",) if tiny else ("ring", "star", "complete")
    return Federated(
        methods=("fedavg", *(f"fedavg@gossip:graph={graph}" for graph in graphs))
        + (() if tiny else ("fedavg@hierarchical:k2=1",)),
        seeds=(0,) if tiny else (0, 1, 2),
        rounds=2 if tiny else 50,
        report_every=1 if tiny else 10,
        data=Data(partitions=("dirichlet:0.5",) if tiny else ("dirichlet:0.5", "classes:2")),
    )
