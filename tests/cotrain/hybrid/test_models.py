"""Models of images under hybrids: equal to one device, bytes exact, memory near."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax.cotrain import pipeline, tensor
from eejax.cotrain.hybrid import (
    Hybrid,
    Level,
    batch_form,
    hybrid_grad,
    hybrid_step,
    make_mesh_of,
    memory,
    mlp_model,
    nbytes,
    pack,
    packed_specs,
    plan,
    predict,
    tier_of,
    unpack,
    vit_model,
)
from eejax.tiers import collectives

IMAGES, PIXELS, CLASSES = 32, 8, 8
SHAPE = tensor.Shape(16, 32, 4, 2, seq=4, layers=4, causal=False)
VIT = vit_model(PIXELS, CLASSES, SHAPE)
MLP = mlp_model(4 * PIXELS, CLASSES, hidden=16, intermediate=32, layers=4)
MODELS = {"vit": VIT, "mlp": MLP}
HYBRIDS = [
    Hybrid(2, 2, "1d", (2,), "fused", microbatches=4),
    Hybrid(1, 2, "2d", (2, 2), "gpipe", microbatches=4),
    Hybrid(2, 2, "fsdp", (2,), "interleaved", chunks=2, microbatches=2),
]
SLOW = [
    Hybrid(2, 2, "1d_sp", (2,), "one_f_one_b", microbatches=4),
    Hybrid(1, 1, "3d", (2, 2, 2), microbatches=2),
    Hybrid(1, 4, "2d_opt", (2, 1), microbatches=4),
    Hybrid(1, 1, "2.5d", (2, 2, 2), microbatches=2),
]


def batch(model):
    key = jax.random.key(1)
    tokens = IMAGES * model.seq
    labels = jax.random.randint(key, (IMAGES,), 0, CLASSES)
    return {
        "inputs": jax.random.normal(key, (tokens, *model.token.shape)),
        "labels": jnp.where(jnp.arange(IMAGES) % 7 == 0, -1, labels),
    }


def by_hand(params, x):
    """A residual perceptron in plain JAX."""

    def norm(p, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * p["scale"][None] + p["bias"][None]

    x = x @ params["embed"]
    for i in range(MLP.layers):
        p = jax.tree.map(lambda w, i=i: w[i], params["layers"])
        y = jax.nn.gelu(norm(p["norm"], x) @ p["mlp"]["w1"] + p["mlp"]["b1"][None])
        x = x + y @ p["mlp"]["w2"] + p["mlp"]["b2"][None]
    return norm(params["norm"], x) @ params["head"]


def whole_vit(params, x):
    layout = tensor.layout("serial")
    return tensor.vit(PIXELS, CLASSES, SHAPE, "none").logits(layout, params, x)


WHOLE = {"vit": whole_vit, "mlp": by_hand}


@pytest.fixture(scope="module", params=list(MODELS))
def case(request):
    """Gives a model with what one device makes of it."""
    model, logits = MODELS[request.param], WHOLE[request.param]
    params, data = model.init(jax.random.key(0)), batch(model)

    def loss(params):
        found = optax.softmax_cross_entropy_with_integer_labels(
            logits(params, data["inputs"]), jnp.maximum(data["labels"], 0)
        )
        return jnp.where(data["labels"] >= 0, found, 0).sum() / (data["labels"] >= 0).sum()

    return model, params, data, jax.device_get(jax.jit(jax.value_and_grad(loss))(params))


@pytest.mark.parametrize(
    "hybrid",
    [*HYBRIDS, *(pytest.param(h, marks=pytest.mark.slow) for h in SLOW)],
    ids=lambda h: f"{h.scheme}-{h.schedule}",
)
def test_hybrid_equals_one_device(hybrid, case):
    model, params, data, (want_loss, want) = case
    mesh, tokens = make_mesh_of(hybrid), IMAGES * model.seq
    packed = tensor.place(pack(params, hybrid), mesh, packed_specs(hybrid, model))
    data = pipeline.microbatches(data, hybrid.microbatches)
    grad = jax.jit(hybrid_grad(model, hybrid, mesh)).lower(packed, data).compile()
    loss, grads = jax.device_get(grad(packed, data))
    np.testing.assert_allclose(loss, want_loss, rtol=1e-6)
    got = dict(jax.tree_util.tree_leaves_with_path(unpack(grads)))
    for path, g in jax.tree_util.tree_leaves_with_path(want):
        assert np.linalg.norm(got[path] - g) < 1e-6 * np.linalg.norm(g), path

    theory, sent, tier = nbytes(hybrid, model, tokens), {}, tier_of(hybrid)
    for axis, number in collectives(grad, mesh).by_tier.items():
        sent[tier[axis]] = sent.get(tier[axis], 0.0) + number
    assert sent == {name: number for name, number in theory.items() if number}


def test_predictions_are_those_of_one_device(case):
    model, params, data, _ = case
    want = WHOLE["vit" if model is VIT else "mlp"](params, data["inputs"])
    assert want.shape == (IMAGES, CLASSES)
    np.testing.assert_allclose(predict(model, params, data["inputs"]), want, rtol=1e-4, atol=1e-5)


SMALL = mlp_model(64, 16, 64, 256, 4), vit_model(64, 16, tensor.Shape(64, 256, 4, 2, 16, 4, False))
# By what fills the memory: activations, gathered operands, stash.
MEMORY = [
    (SMALL[0], 4096, Hybrid(2, 2, "1d_sp", (2,), microbatches=4)),
    (SMALL[1], 1024, Hybrid(1, 2, "2d", (2, 2), "gpipe", microbatches=4)),
    pytest.param(
        SMALL[0], 8192, Hybrid(1, 4, "1d", (2,), "gpipe", microbatches=4), marks=pytest.mark.slow
    ),
    pytest.param(
        SMALL[1],
        4096,
        Hybrid(2, 4, schedule="one_f_one_b", microbatches=8),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("model", "tokens", "hybrid"), MEMORY, ids=["mlp", "vit"] * 2)
def test_memory_of_a_training_step_is_near(model, tokens, hybrid):
    init, step = hybrid_step(model, hybrid, make_mesh_of(hybrid), optax.adam(1e-3))
    state = init(jax.random.key(0))
    size = step.lower(state, batch_form(model, hybrid, tokens)).compile().memory_analysis()
    real = size.argument_size_in_bytes + size.temp_size_in_bytes
    real += size.output_size_in_bytes - size.alias_size_in_bytes
    assert memory(hybrid, model, tokens).total == pytest.approx(real, rel=0.15)


def test_time_of_one_device_is_the_flop_of_the_model():
    one = {"flops_per_s": 1e12, "memory_bytes": 1e12, "schemes": ("serial",), "microbatches": (1,)}
    level = {"end": Level(1, 1e9)}
    (found,) = plan(MLP, IMAGES, level, **one)
    # Forward, backward and the forward again, but no gradient of the pixels.
    flop = 2 * IMAGES * (2 * 32 * 16 + 4 * 3 * 2 * 16 * 32 + 3 * 16 * CLASSES)
    assert found.seconds["compute"] == pytest.approx(flop / 1e12)
    (found,) = plan(VIT, 4 * IMAGES, level, **one)
    layer = 16 * (2 * 16 + 2 * 8 + 2 * 32) + 2 * 4 * 16
    flop = 2 * 4 * IMAGES * (2 * 8 * 16 + 4 * 3 * layer + 3 * 16 * CLASSES)
    assert found.seconds["compute"] == pytest.approx(flop / 1e12)


def test_images_that_do_not_divide_are_named():
    hybrid = Hybrid(data=2, microbatches=4)
    grad = hybrid_grad(VIT, hybrid, make_mesh_of(hybrid))
    data = {"inputs": jnp.zeros((4, 12, PIXELS)), "labels": jnp.zeros((4, 3), int)}
    with pytest.raises(ValueError, match="tokens=48 must be sequences of seq=4"):
        grad({}, data)
    hybrid = Hybrid(1, 1, "1d", (3,))
    with pytest.raises(ValueError, match="cannot be split over t=3"):
        hybrid_step(MLP, hybrid, make_mesh_of(hybrid), optax.sgd(1.0))[0](jax.random.key(0))
