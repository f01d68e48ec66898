"""Slices of real kinds of models compute exactly what the whole computes, at any batch."""

import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.partition.function import from_function
from eejax.partition.slicing import export_tiers, own_params, run_tiers, slice_tiers


class Block(nn.Module):
    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        strides = (self.stride, self.stride)
        y = nn.Conv(self.features, (3, 3), strides, use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=not train)(y))
        y = nn.Conv(self.features, (3, 3), use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=not train)(y)
        if x.shape != y.shape:
            x = nn.Conv(self.features, (1, 1), strides, use_bias=False, name="proj")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    drop: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(8, (3, 3), name="stem")(x.astype(jnp.float32) / 255))
        x = Block(8, name="block1")(x, train)
        early = nn.Dense(10, name="exit")(x.mean((1, 2)))
        x = nn.remat(Block, static_argnums=(2,))(16, 2, name="block2")(x, train)
        x = nn.Dropout(self.drop, deterministic=not train)(x.mean((1, 2)))
        return early, nn.Dense(10, name="head")(x)


class Exits(nn.Module):
    @nn.compact
    def __call__(self, x):
        logits = {}
        for i, features in enumerate((8, 12, 16)):
            x = nn.max_pool(nn.relu(nn.Conv(features, (3, 3), name=f"conv{i}")(x)), (2, 2), (2, 2))
            logits[f"exit{i}"] = nn.Dense(10, name=f"exit{i}")(x.mean((1, 2)))
        return logits


class DenseNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        features = [x]
        for i in range(5):
            y = jnp.concatenate(features, -1)
            features.append(nn.relu(nn.Conv(4, (3, 3), name=f"conv{i}")(y)))
        return nn.Dense(10, name="head")(jnp.concatenate(features, -1).mean((1, 2)))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, h, _):
        h = h + nn.SelfAttention(2, name="attention")(nn.LayerNorm(name="norm1")(h))
        y = nn.gelu(nn.Dense(32, name="up")(nn.LayerNorm(name="norm2")(h)))
        return h + nn.Dense(16, name="down")(y), None


class Transformer(nn.Module):
    scanned: bool = False

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(20, 16, name="embed")
        x = embed(tokens)
        if self.scanned:
            layers = nn.scan(Layer, {"params": 0}, split_rngs={"params": True}, length=3)
            x, _ = layers(name="layers")(x, None)
        else:
            for i in range(3):
                x, _ = Layer(name=f"layer{i}")(x, None)
        return embed.attend(nn.LayerNorm(name="norm")(x))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(12, name="project")(x))
        x = nn.RNN(nn.LSTMCell(12), name="lstm1")(x)
        x = nn.RNN(nn.GRUCell(12), name="gru")(x)
        return nn.Dense(5, name="head")(x[:, -1])


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
TOKENS = np.random.default_rng(0).integers(0, 20, (4, 7)).astype(np.int32)
SERIES = np.random.default_rng(0).normal(size=(4, 9, 6)).astype(np.float32)


def linen(module, x):
    return module.apply, jax.jit(module.init)(jax.random.key(0), x), x


def in_training():
    module = ResNet(drop=0.3)

    def apply(held, x):
        keys = {"dropout": held["key"]}
        return module.apply(held["variables"], x, True, rngs=keys, mutable=["batch_stats"])

    variables = jax.jit(module.init)(jax.random.key(0), PIXELS)
    return apply, {"variables": variables, "key": jax.random.key(1)}, PIXELS


def conditional():
    table = jnp.asarray(np.random.default_rng(1).normal(size=(54, 10)), jnp.float32)

    def apply(params, x):
        x = jnp.tanh(x.reshape(x.shape[0], -1) @ params["first"]["w"])
        x = jax.lax.cond(x.sum() > 0, lambda x: x @ table, lambda x: jnp.sin(x) @ table, x)
        return x @ params["last"]["w"]

    keys = jax.random.split(jax.random.key(0))
    first, last = jax.random.normal(keys[0], (54, 54)), jax.random.normal(keys[1], (10, 3))
    return apply, {"first": {"w": first}, "last": {"w": last}}, SERIES


def two_inputs():
    def apply(params, inputs):
        x = jax.nn.relu(inputs["image"].reshape(inputs["image"].shape[0], -1) @ params["w1"])
        y = jnp.where(inputs["mask"], x @ params["w2"], 0.0)
        return {"y": y, "mask": inputs["mask"], "scale": params["w3"], "sum": (y @ params["w3"], 1)}

    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (768, 6), (6, 6), (6, 2)
    params = {f"w{i}": jax.random.normal(key, s) for i, (key, s) in enumerate(zip(keys, shapes), 1)}
    mask = np.random.default_rng(0).random((4, 6)) < 0.5
    return apply, params, {"image": PIXELS.astype(np.float32) / 255, "mask": mask}


MODELS = {
    "exits": lambda: linen(Exits(), PIXELS.astype(np.float32) / 255),
    "resnet": lambda: linen(ResNet(), PIXELS),
    "resnet in training": in_training,
    "densenet": lambda: linen(DenseNet(), PIXELS.astype(np.float32) / 255),
    "transformer": lambda: linen(Transformer(), TOKENS),
    "scanned transformer": lambda: linen(Transformer(scanned=True), TOKENS),
    "recurrent": lambda: linen(Recurrent(), SERIES),
    "cond": conditional,
    "two inputs": two_inputs,
}


def plans(graph, rng):
    """Assignments to three tiers: two cuts of the order, and one that follows the arrows alone."""
    count = len(graph.layers)
    cuts = np.sort(rng.choice(np.arange(1, count), min(2, count - 1), replace=False))
    yield np.searchsorted(cuts, np.arange(count), "right")
    tiers = np.zeros(count, int)
    for i in range(count):
        before = [t.producer for t in graph.tensors if i in t.consumers and t.producer >= 0]
        tiers[i] = min(2, max(tiers[before], default=0) + (rng.random() < 2 / count))
    yield tiers


def assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected)):
        assert jnp.asarray(a).dtype == jnp.asarray(b).dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("name", MODELS)
def test_tiers_together_compute_the_original(name):
    apply, params, x = MODELS[name]()
    expected = jax.jit(apply)(params, x)
    depth = 1 if name in ("exits", "resnet", "transformer") else None
    traced = from_function(apply, params, x, depth=depth)
    nbytes = {tensor.name: tensor.nbytes for tensor in traced.graph.tensors}
    for tiers in plans(traced.graph, np.random.default_rng(len(name))):
        programs = slice_tiers(traced, tiers)
        assert_same(run_tiers(traced, programs, params, x), expected)
        for program in programs:
            for tensor, value in program.reads.items():
                sent = value.size * value.dtype.itemsize / 4
                assert nbytes.get(tensor, sent) == sent


def test_operators_of_modules_are_sliced_too():
    apply, params, x = MODELS["resnet"]()
    traced = from_function(jax.jit(jax.checkpoint(apply)), params, x)
    assert len(traced.graph.layers) == 8
    tiers = [0, 0, 0, 1, 1, 1, 1, 2]
    programs = slice_tiers(traced, tiers)
    assert_same(run_tiers(traced, programs, params, x), jax.jit(apply)(params, x))
    assert sum(len(program.params) for program in programs) == len(jax.tree.leaves(params))
    assert all("block2" not in name for name in programs[0].params)
    assert any("batch_stats/block1" in name for name in programs[0].params)


@pytest.mark.parametrize("name", ["exits", "recurrent", "cond", "two inputs"])
def test_a_tensor_changed_on_the_way_changes_the_answer(name):
    apply, params, x = MODELS[name]()
    traced = from_function(apply, params, x)
    count = len(traced.graph.layers)
    low, high = slice_tiers(traced, [0] * (count // 2) + [1] * (count - count // 2))
    good = run_tiers(traced, (low, high), params, x)
    for tensor in set(high.reads) & set(low.makes):

        def tampered(own, reads, tensor=tensor):
            made = low.apply(own, reads)
            return made | {tensor: jnp.flip(made[tensor])}

        bad = run_tiers(traced, (low._replace(apply=tampered), high), params, x)
        differ = [bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (good, bad)))]
        assert any(differ), tensor


@pytest.mark.parametrize("name", ["resnet", "transformer", "recurrent", "cond", "two inputs"])
def test_exported_tiers_run_at_any_batch(name):
    apply, params, x = MODELS[name]()
    traced = from_function(apply, params, x)
    count = len(traced.graph.layers)
    tiers = [0] * (count // 2) + [2] * (count - count // 2)
    programs = export_tiers(traced, tiers, platforms=("cpu", "cuda", "tpu"))
    for program, fixed in zip(programs, slice_tiers(traced, tiers)):
        assert program.exported.platforms == ("cpu", "cuda", "tpu")
        assert program.params == fixed.params
        assert set(program.reads) == set(fixed.reads)
        assert set(program.makes) == set(fixed.makes)
        if importlib.util.find_spec("flatbuffers"):
            again = jax.export.deserialize(program.exported.serialize())
            # Open batches of two scopes are never equal, so compare how they are written.
            assert str(again.in_avals) == str(program.exported.in_avals)
    for batch in (1, 3, 8):
        data = jax.tree.map(lambda leaf, n=batch: np.concatenate([leaf, leaf[::-1]])[:n], x)
        expected = jax.jit(apply)(params, data)
        assert_same(run_tiers(traced, programs, params, data), expected)


def test_each_tier_holds_its_own_parameters_and_makes_what_others_read():
    apply, params, x = MODELS["two inputs"]()
    traced = from_function(apply, params, x)
    low, high = slice_tiers(traced, {"w1": 1, "w2": 1, "w3": 4})
    assert (low.tier, low.layers, set(low.params)) == (1, ("w1", "w2"), {"w1", "w2"})
    assert (high.tier, high.layers, set(high.params)) == (4, ("w3",), {"w3"})
    assert set(own_params(high, params)) == {"w3"}
    assert set(low.reads) == {"input/image", "input/mask"}
    # The mask is an answer as it came; y is an answer, and goes up.
    assert set(low.makes) == {"output/y", "output/mask", "w2"}
    assert set(high.reads) == {"w2"}
    # What is no data is made where its parameters are, or last.
    assert set(high.makes) == {"output/scale", "output/sum/0", "output/sum/1"}
    assert low.makes["w2"] == jax.ShapeDtypeStruct((4, 6), jnp.float32)


def test_random_keys_are_on_every_tier_that_draws():
    def apply(held, x):
        for i, key in enumerate(jax.random.split(held["key"])):
            x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x @ held[f"w{i}"], 0)
        return x

    weights = jax.random.normal(jax.random.key(1), (2, 3, 3))
    params = {"key": jax.random.key(0), "w0": weights[0], "w1": weights[1]}
    x = np.ones((4, 3), np.float32)
    traced = from_function(apply, params, x)
    programs = slice_tiers(traced, [0, 1])
    assert [set(program.params) for program in programs] == [{"key", "w0"}, {"key", "w1"}]
    assert list(programs[1].reads) == ["w0"]
    assert_same(run_tiers(traced, programs, params, x), jax.jit(apply)(params, x))


def test_a_bad_assignment_is_one_clear_error():
    apply, params, x = MODELS["two inputs"]()
    traced = from_function(apply, params, x)
    with pytest.raises(ValueError, match=r"no layer 'w22'; did you mean 'w2'\?.*w1, w2, w3"):
        slice_tiers(traced, {"w1": 0, "w22": 0, "w3": 1})
    with pytest.raises(ValueError, match="names no tier for w2, w3"):
        slice_tiers(traced, {"w1": 0})
    with pytest.raises(ValueError, match="each of 3 layers, got 2"):
        slice_tiers(traced, [0, 1])
    with pytest.raises(ValueError, match="must be >= 0, got -1"):
        slice_tiers(traced, [-1, 0, 0])
    with pytest.raises(ValueError, match="'w2' on tier 0, below tier 1 where 'w1'"):
        slice_tiers(traced, [1, 0, 1])


def test_a_function_of_one_batch_cannot_be_exported_for_all():
    def fixed(params, x):
        return x @ params * jnp.arange(4.0).reshape(4, 1)

    def branching(params, x):
        return x @ params if x.shape[0] == 4 else 2 * x

    for apply, message in (
        (fixed, r"open batch .*slice_tiers keeps the batch of 4"),
        (branching, r"other layers when .* left open \(mul\) than at a batch of 4 \(params\)"),
    ):
        traced = from_function(apply, jnp.ones((3, 3)), jnp.ones((4, 3)))
        with pytest.raises(ValueError, match=message):
            export_tiers(traced, [0])
