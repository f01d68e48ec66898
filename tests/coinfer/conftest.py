"""A small staged model of plain functions, with one stage that has no exit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.core import Exit, Stage
from eejax.models.staged import init, staged


def dense(name, width, activation=jnp.tanh, traced=None):
    def initialise(key, x):
        return {"w": jax.random.normal(key, (x.shape[-1], width)), "b": jnp.full(width, 0.1)}

    def apply(params, x, *, train=False, key=None):
        if traced is not None:
            traced.append((name, x.shape))
        return activation(x @ params["w"] + params["b"][None])

    return Stage(name, initialise, apply)


def make_model(traced=None):
    """Stages of 16, 7, 12 and 5 features; exits of 10 classes after all but the second."""
    widths = {"end": 16, "gateway": 7, "edge": 12, "cloud": 5}
    stages = [dense(name, width, traced=traced) for name, width in widths.items()]
    exits = [
        Exit(after, dense(f"exit{n}", 10, lambda z: 3 * z))
        for n, after in enumerate(["end", "edge", "cloud"], 1)
    ]
    return staged(tuple(stages), tuple(exits))


@pytest.fixture(scope="session")
def tiny():
    """``(model, params, x [50, 3])``."""
    model = make_model()
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    return model, init(model, jax.random.key(0), x), x


@pytest.fixture
def counted():
    """A model of its own, and the list of its stages as they are traced."""
    traced = []
    return make_model(traced), traced
