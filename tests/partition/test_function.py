"""Layer graphs of functions: hand-computed numbers, XLA's count, and clear errors."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eejax.models import staged_mlp
from eejax.models.staged import all_logits
from eejax.models.staged import init as init_staged
from eejax.partition import from_staged, min_cut
from eejax.partition.function import from_function
from eejax.tiers import three_tier, work_of


def mlp(params, x):
    x = x / 255
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def mlp_params(widths):
    def array(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    return [{"w": array(m, n), "b": array(1, n)} for m, n in pairwise(widths)]


def product(w, x):
    return x @ w


def test_numbers_of_a_small_network():
    x = jax.ShapeDtypeStruct((32, 100), jnp.uint8)
    graph, unknown, *_ = from_function(mlp, mlp_params((100, 20, 10)), x)
    assert not unknown
    first, last = graph.layers
    # Conversion and division of the input, the product, bias and relu.
    assert first[:2] == ("0", 2 * 100 + 2 * 100 * 20 + 20 + 20)
    assert last[:2] == ("1", 2 * 20 * 10 + 10)
    assert first.parameter_bytes == 4 * (100 * 20 + 20)
    # uint8 in, scaled floats out and in, the weights and bias, the product out and in, relu out.
    assert first.bytes_moved == 100 + 4 * (100 + 100) + 4 * 2020 + 4 * 3 * 20
    assert [tuple(tensor) for tensor in graph.tensors] == [
        ("input", -1, (0,), 100),
        ("0", 0, (1,), 80),
    ]
    assert graph.granularity == "operator with what follows it"


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_costs_do_not_depend_on_the_batch(batch):
    params = mlp_params((100, 20, 10))
    one = from_function(mlp, params, jax.ShapeDtypeStruct((1, 100), jnp.float32)).graph
    many = from_function(mlp, params, jax.ShapeDtypeStruct((batch, 100), jnp.float32)).graph
    for a, b in zip(one.layers, many.layers):
        assert a.flops == pytest.approx(b.flops)
        assert a.bytes_moved == pytest.approx(b.bytes_moved)
    assert one.tensors == many.tensors


def test_stages_cost_what_the_staged_model_costs():
    model = staged_mlp(classes=10, widths=(32, 16))
    x = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    params = jax.eval_shape(lambda key: init_staged(model, key, x), jax.random.key(0))
    staged = from_staged(model, params, x)
    traced = from_function(lambda params, x: all_logits(model, params, x), params, x)
    assert sum(layer.flops for layer in traced.graph.layers) == pytest.approx(
        sum(layer.flops for layer in staged.layers), rel=0.01
    )
    sizes = {tensor.nbytes for tensor in traced.graph.tensors}
    assert {tensor.nbytes for tensor in staged.tensors} <= sizes


def test_flop_are_those_of_xla_within_a_hundredth():
    def attention(params, x):
        x = x + params["position"]
        q, k, v = (jnp.einsum("btd,dhe->bhte", x, params[name]) for name in "qkv")
        scores = jax.nn.softmax(jnp.einsum("bhte,bhse->bhts", q, k) / 3)
        x = x + jnp.einsum("bhts,bhse,hed->btd", scores, v, params["o"])
        return jax.nn.gelu(x - x.mean(-1, keepdims=True)).mean(1) @ params["head"]

    shapes = dict.fromkeys("qkv", (16, 2, 8)) | {"o": (2, 8, 16), "head": (16, 10)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    params["position"] = jax.ShapeDtypeStruct((1, 12, 16), jnp.float32)
    x = jax.ShapeDtypeStruct((1, 12, 16), jnp.float32)
    graph = from_function(attention, params, x).graph
    analysis = jax.jit(attention).lower(params, x).cost_analysis()
    expected = analysis["flops"] + analysis["transcendentals"]
    assert sum(layer.flops for layer in graph.layers) == pytest.approx(expected, rel=0.01)
    # What is fused does not reach the memory.
    moved = sum(layer.bytes_moved for layer in graph.layers)
    assert moved < work_of(attention, params, x).bytes_moved
    assert [layer.name for layer in graph.layers][:3] == ["q", "k", "v"]


def test_constants_are_parameters():
    table = np.ones((6, 7), np.float32)
    graph = from_function(lambda w, x: x @ table * w, jnp.ones(()), jnp.ones((2, 6))).graph
    assert graph.layers[0].parameter_bytes == 4 * 43


def test_several_inputs_and_tensors_have_names_of_their_own():
    def model(params, inputs):
        x = inputs["a"] @ params["input"]
        left, right = jnp.sin(x), x + 1
        return (left @ params["output"] + inputs["b"]) * (right @ params["output"])

    params = {"input": jnp.ones((3, 3)), "output": jnp.ones((3, 3))}
    inputs = {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 3)), "unused": jnp.ones((2, 9))}
    graph = from_function(model, params, inputs).graph
    assert [layer.name for layer in graph.layers] == ["input", "output", "output#1"]
    names = [tensor.name for tensor in graph.tensors]
    assert names[:2] == ["input/a", "input/b"]
    assert len(names) == len(set(names))


def test_a_single_sample_has_no_batch():
    graph = from_function(product, jnp.ones((3, 2)), jnp.ones((5, 3)), samples=1).graph
    assert graph.layers[0].flops == 2 * 5 * 3 * 2
    assert graph.tensors[0].nbytes == 60
    assert from_function(product, jnp.ones((3, 2)), jnp.ones((5, 3))).graph.tensors[0].nbytes == 12


def test_unknown_primitives_are_named():
    def fn(w, x):
        return jnp.linalg.cholesky(x) @ w

    x = jnp.eye(4)[None]
    traced = from_function(fn, jnp.ones((4, 4)), x)
    assert traced.unknown == {"cholesky": 1}
    rules = {"cholesky": lambda _, reads, __: 1e6}
    known = from_function(fn, jnp.ones((4, 4)), x, rules=rules)
    assert not known.unknown
    assert sum(layer.flops for layer in known.graph.layers) > 1e6


def test_the_graph_can_be_planned():
    params = mlp_params((784, 256, 64, 10))
    x = jax.ShapeDtypeStruct((8, 784), jnp.uint8)
    graph = from_function(mlp, params, x).graph
    plan = min_cut(graph, three_tier(ends=1, edges=1), "latency")
    assert len(plan.assignment) == 3


def test_bad_arguments_are_clear_errors():
    w, x = jnp.ones((3, 2)), jnp.ones((5, 3))
    with pytest.raises(ValueError, match=r"depth must be >= 1.*got 0"):
        from_function(product, w, x, depth=0)
    with pytest.raises(ValueError, match="samples must be >= 1, got 0"):
        from_function(product, w, x, samples=0)
    with pytest.raises(ValueError, match="no output of the function depends on the example"):
        from_function(lambda w, x: w, w, x)
    with pytest.raises(ValueError, match="at least one array"):
        from_function(lambda w, x: w, w, ())
    with pytest.raises(ValueError, match=r"one first axis.*'example/1': \(4,\)"):
        from_function(lambda w, x: x[0] @ w, w, (x, jnp.ones(4)))
    with pytest.raises(ValueError, match="side effects"):
        from_function(lambda w, x: jax.debug.print("x") or x @ w, w, x)
