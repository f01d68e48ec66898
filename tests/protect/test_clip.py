import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.protect import clip, fixed_point
from eejax.wire import abstract_nbytes, affine, chain, deserialize, serialize, topk


def norm(tree):
    leaves = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)]
    return np.linalg.norm(np.concatenate(leaves))


def make_tree(scale=1.0, seed=0):
    x, y = jax.random.normal(jax.random.key(seed), (2, 60))
    return {"w": scale * x.reshape(3, 20), "b": (scale * y,)}


def test_long_trees_are_scaled_and_short_ones_are_left():
    tree = {"w": jnp.array([[3.0]]), "b": (jnp.array([0.0, 4.0]),), "i": jnp.array([7])}
    for bound, scale in ((10.0, 1.0), (2.5, 0.5)):
        codec = clip(bound)
        _, sent = codec.encode(codec.init(tree), tree, None)
        assert sent["i"].tolist() == [7]
        np.testing.assert_allclose(sent["w"], [[3 * scale]], rtol=1e-6)
        np.testing.assert_allclose(sent["b"][0], [0, 4 * scale], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_has_no_norm_becomes_zero(bad):
    _, sent = clip(1.0).encode((), {"w": jnp.array([1.0, bad]), "b": jnp.ones(3)}, None)
    assert norm(sent) == 0


CHAINS = {
    "clip": chain(clip(1.0)),
    "int4": chain(clip(1.0), affine(4)),
    "topk_int8": chain(clip(1.0), topk(0.1), affine(8)),
    "topk_first": chain(topk(0.1), clip(1.0)),
    "fixed_point": chain(clip(1.0), fixed_point(1.0, 10, levels=3)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_every_chain_arrives_within_the_bound(name):
    codec = CHAINS[name]

    @jax.jit
    def send(tree):
        _, payload = codec.encode(codec.init(tree), tree, None)
        return payload, codec.decode(payload)

    for scale in (1e-3, 0.09, 1.0, 1e3):
        payload, arrived = send(make_tree(scale))
        assert norm(arrived) <= 1 + 1e-6
        assert (
            codec.nbytes(payload) == len(serialize(payload)) == abstract_nbytes(codec, make_tree())
        )
        assert serialize(deserialize(serialize(payload), payload)) == serialize(payload)


def test_a_lossy_codec_alone_does_lengthen():
    """Why `clip` cuts again on decoding."""
    codec = affine(4)
    tree = clip(1.0).encode((), make_tree(), None)[1]
    longer = [
        norm(
            codec.decode(
                codec.encode((), clip(1.0).encode((), make_tree(seed=s), None)[1], None)[1]
            )
        )
        for s in range(8)
    ]
    assert norm(tree) <= 1 + 1e-6 < max(longer)


@pytest.mark.parametrize("bound", [0, -1, float("inf"), float("nan")])
def test_bound_must_be_positive_and_finite(bound):
    with pytest.raises(ValueError, match="bound must be above 0 and finite"):
        clip(bound)
