"""The layer graph of a staged model against sizes counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax import trees
from eejax.core import Exit, Stage
from eejax.models.staged import init, staged
from eejax.partition import exhaustive, from_staged, price
from eejax.tiers import three_tier
from eejax.wire import affine, chain, deflate, identity

IMAGES = jax.ShapeDtypeStruct((32, 28, 28, 1), jnp.uint8)


def dense(name, width):
    """A matrix product over all values of a sample, and nothing else."""

    def init(key, x):
        return jax.random.normal(key, (int(np.prod(x.shape[1:])), width))

    def apply(params, x, *, train=False, key=None):
        del train, key
        return x.reshape(len(x), -1).astype(jnp.float32) @ params

    return Stage(name, init, apply)


MODEL = staged(
    (dense("stage1", 64), dense("stage2", 16), dense("stage3", 8)),
    (Exit("stage1", dense("exit1", 10)), Exit("stage3", dense("exit3", 10))),
)
PARAMS = init(MODEL, jax.random.key(0), IMAGES)
GRAPH = from_staged(MODEL, PARAMS, IMAGES)


def sizes(graph):
    return {tensor.name: tensor.nbytes for tensor in graph.tensors}


def test_a_layer_is_a_stage_with_its_exit():
    assert GRAPH.granularity == "stage with its exit"
    assert [layer.name for layer in GRAPH.layers] == ["stage1", "stage2", "stage3"]
    # 2 FLOP a parameter and sample: 784 * 64 + 64 * 10; 64 * 16; 16 * 8 + 8 * 10. And 784 casts.
    assert [layer.flops for layer in GRAPH.layers] == [2 * 50_816 + 784, 2 * 1024, 2 * 208]
    assert [layer.parameter_bytes for layer in GRAPH.layers] == [4 * 50_816, 4 * 1024, 4 * 208]
    assert sum(layer.parameter_bytes for layer in GRAPH.layers) == trees.nbytes(PARAMS)
    # Stage 2 reads 64 values and 1024 weights, and writes 16 values.
    assert GRAPH.layers[1].bytes_moved == 4 * (64 + 1024 + 16)


def test_tensors_form_a_chain_and_the_raw_input_is_priced_as_uint8():
    assert [tensor[:3] for tensor in GRAPH.tensors] == [
        ("input", -1, (0,)),
        ("stage1", 0, (1,)),
        ("stage2", 1, (2,)),
    ]
    assert sizes(GRAPH) == {"input": 784, "stage1": 4 * 64, "stage2": 4 * 16}
    floats = jax.ShapeDtypeStruct(IMAGES.shape, jnp.float32)
    assert sizes(from_staged(MODEL, PARAMS, floats))["input"] == 4 * 784


def test_all_cloud_ships_the_input_and_the_answer_only():
    plan = price(GRAPH, three_tier(), ["cloud"] * 3)
    assert plan.link_bytes == {
        ("end", "edge"): 784,
        ("edge", "cloud"): 784,
        ("edge", "end"): 4,
        ("cloud", "edge"): 4,
    }


def test_codecs_of_features_and_of_the_input():
    # A byte a value; float32 scale and uint8 zero point.
    coded = from_staged(MODEL, PARAMS, IMAGES, affine(8))
    assert sizes(coded) == {"input": 784, "stage1": 64 + 5, "stage2": 16 + 5}
    assert coded.layers == GRAPH.layers
    assert from_staged(MODEL, PARAMS, IMAGES, identity(), identity()) == GRAPH
    # The input alone: 4 bits a value, and again 5 bytes.
    floats = jax.ShapeDtypeStruct(IMAGES.shape, jnp.float32)
    coded = from_staged(MODEL, PARAMS, floats, input_codec=affine(4))
    assert sizes(coded) == sizes(GRAPH) | {"input": 392 + 5}


def test_only_shapes_count():
    drawn = jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)), jnp.uint8)
    assert from_staged(MODEL, PARAMS, drawn) == GRAPH
    assert from_staged(MODEL, trees.abstract(PARAMS), IMAGES) == GRAPH


def test_measured_sizes_stand_in_for_those_that_depend_on_data():
    codec = chain(affine(8), deflate())
    with pytest.raises(ValueError, match=r"size of 'stage1' .*; give .* as sizes=\{'stage1': byt"):
        from_staged(MODEL, PARAMS, IMAGES, codec)
    with pytest.raises(ValueError, match=r"size of 'input' on a link depends on the data"):
        from_staged(MODEL, PARAMS, IMAGES, input_codec=deflate())
    measured = {"stage1": 41.5, "stage2": 12.25}
    graph = from_staged(MODEL, PARAMS, IMAGES, codec, sizes=measured)
    assert sizes(graph) == {"input": 784, **measured}


def test_the_plans_of_a_model_hold_its_baselines():
    names = {plan.name for plan in exhaustive(GRAPH, three_tier())}
    assert len(names) == 10
    assert {"all-end", "all-edge", "all-cloud"} < names
    assert {"end:stage1 | edge:stage2 | cloud:stage3", "end:stage1+stage2 | cloud:stage3"} < names


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: from_staged(MODEL, PARAMS, IMAGES, sizes={"stage3": 8}),
            "sizes: 'stage3' is none of input, stage1, stage2; did you mean 'stage[12]'?",
        ),
        (
            lambda: from_staged(MODEL, PARAMS, IMAGES, sizes={"stage2": -8}),
            r"tensors\[2\].nbytes of 'stage2' must be finite and >= 0, got -8",
        ),
        (
            lambda: from_staged(MODEL, {"stage1": PARAMS["stage1"]}, IMAGES),
            "params lack 'exit1'; they hold stage1",
        ),
        (
            lambda: from_staged(MODEL, PARAMS, np.zeros((2, 28, 28, 1))),
            "float64, which JAX holds as float32",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
