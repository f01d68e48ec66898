"""Robust aggregation: three of ten clients attack, and the server does or does not resist.

    eejax run configs/federated/robust.py
    eejax run configs/federated/robust.py:a_little_is_enough
    eejax run configs/federated/robust.py:inner_product:0.5

The argument is the attack, any that ``adversaries.attack`` takes. ``central`` is what all samples
in one place reach without attackers.

Accuracy in % after 50 rounds on the test split, mean of three seeds (lowest to highest, where they
differ by more than a point); central reaches 97.5:

=============  ===================  ==================  ===================  ===================
server         sign_flip            a_little_is_enough  inner_product:0.5    label_flip
=============  ===================  ==================  ===================  ===================
mean           68.4 (49.2 to 92.8)  94.3                93.6 (92.5 to 94.2)  83.1 (73.1 to 93.1)
krum           70.9 (66.1 to 74.4)  94.3                70.4 (68.1 to 73.6)  77.1 (66.1 to 89.2)
multi_krum     91.4 (90.3 to 92.8)  94.5                25.7 (18.3 to 31.4)  92.5 (91.1 to 94.2)
trimmed_mean   88.1 (84.4 to 90.0)  94.3                87.1 (83.9 to 90.0)  93.1 (92.2 to 93.6)
median         87.2 (84.2 to 89.4)  94.3                83.9 (81.4 to 85.3)  92.6 (91.9 to 93.1)
norm_bound     85.0 (77.5 to 89.4)  94.3                91.5 (90.3 to 92.5)  93.0 (91.7 to 93.9)
=============  ===================  ==================  ===================  ===================

Multi-Krum resists attackers that lie far off, and falls to those that lie too close together,
which the mean hardly feels: no aggregator is best against all. Three of ten hide behind 0.18
standard deviations (``a_little_is_enough``), and harm nobody here. Against the other three Krum is
far below central: it learns from one client a round, whose labels are not those of all.

References: Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient
Descent, 2017; Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical
Rates, 2018.
"""

from eejax.experiment.runs.federated import Adversaries, Data, Federated, run

__all__ = ["get_config", "run"]

ATTACKS = ("label_flip", "sign_flip", "gaussian", "a_little_is_enough", "inner_product")


def get_config(arg: str | None = None) -> Federated:
    """Gives the config; the argument ``tiny`` runs the same code in seconds, others are attacks."""
    if arg is not None and arg.partition(":")[0] not in ("tiny", *ATTACKS):
        raise ValueError(f"argument {arg!r} is none of: tiny, {', '.join(ATTACKS)}")
    tiny = arg == "tiny"
    attack = "sign_flip" if arg is None or tiny else arg
    resisting = ("krum", "multi_krum", "trimmed_mean", "median", "norm_bound")
    return Federated(
        methods=("fedavg@central", "fedavg", *(f"fedavg@{name}" for name in resisting)),
        seeds=(0,) if tiny else (0, 1, 2),
        rounds=2 if tiny else 50,
        report_every=1 if tiny else 10,
        data=Data(partitions=("dirichlet:0.5",)),
        adversaries=Adversaries(attack, clients=3),
    )
