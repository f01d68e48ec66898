"""A byte-level language model, trained by data, pipeline and tensor parallelism in one program.

    eejax run configs/parallel/language_model.py
    eejax parallel inspect configs/parallel/language_model.py

Two copies of a two-stage pipeline (fused 1F1B schedule) whose stages are split over two devices
(Megatron-LM with sequence parallelism): eight devices, fake ones on a CPU. The text is Python's own
documentation. Layouts, schedules and sizes are fields: ``--config.layout.scheme=2d
--config.layout.grid 2 2 --config.layout.data=1``.

References: Narayanan et al., Efficient Large-Scale Language Model Training on GPU Clusters Using
Megatron-LM, 2021.
"""

from eejax.experiment.runs.parallel import Parallel, run, tiny

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Parallel:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    return tiny() if arg == "tiny" else Parallel()
