"""A residual perceptron on digits, trained by data, pipeline and tensor parallelism in one program.

    eejax run configs/parallel/mlp_digits.py
    eejax parallel plan configs/parallel/mlp_digits.py
    eejax parallel inspect configs/parallel/mlp_digits.py

The smallest example: 1,437 images of 8 x 8 pixels that come with scikit-learn, and layers of a
transformer without attention. Eight devices as in ``language_model.py``; ``--config.layout.data=1
--config.layout.stages=1 --config.layout.scheme=serial --config.layout.grid`` trains the same model
on one, to the same accuracy.

References: He et al., Deep Residual Learning for Image Recognition, 2016. Narayanan et al.,
Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM, 2021.
"""

from eejax.experiment.runs.parallel import Layout, Parallel, Perceptron, run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Parallel:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    tiny = arg == "tiny"
    return Parallel(
        data="digits",
        sequences=32 if tiny else 64,
        steps=20 if tiny else 500,
        report_every=10 if tiny else 50,
        learning_rate=3e-3 if tiny else 1e-3,
        cosine=True,
        model=Perceptron(hidden=32, intermediate=64, layers=2) if tiny else Perceptron(),
        layout=Layout(microbatches=2) if tiny else Layout(),
    )
