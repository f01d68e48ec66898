"""Layer graphs: what check lets pass, and how it names each fault."""

import pytest

from eejax.partition import Layer, LayerGraph, Tensor, check

LAYERS = tuple(Layer(name, 10.0, 20.0, 30) for name in "abc")
X = Tensor("x", -1, (0,), 8)
U = Tensor("u", 0, (1, 2), 4)


def test_a_good_graph_comes_back_as_it_is():
    graph = LayerGraph(LAYERS, (X, U), "layer")
    assert check(graph) is graph


def test_a_tensor_that_nobody_reads_is_an_output():
    check(LayerGraph(LAYERS, (X, U, Tensor("logits", 2, (), 4)), "layer"))


@pytest.mark.parametrize(
    ("layers", "tensors", "message"),
    [
        ((), (X,), "layers must hold at least one layer"),
        (
            (LAYERS[0], LAYERS[0]),
            (X,),
            r"layers\[1\].name 'a' is used before already",
        ),
        (LAYERS, (X, X), r"tensors\[1\].name 'x' is used before already"),
        (
            (LAYERS[0]._replace(flops=-1.0),),
            (X,),
            r"layers\[0\].flops of 'a' must be finite and >= 0, got -1",
        ),
        (
            (LAYERS[0]._replace(bytes_moved=float("nan")),),
            (X,),
            r"layers\[0\].bytes_moved of 'a' must be finite and >= 0, got nan",
        ),
        (
            (LAYERS[0]._replace(parameter_bytes=float("inf")),),
            (X,),
            r"layers\[0\].parameter_bytes of 'a' must be finite and >= 0, got inf",
        ),
        (
            LAYERS,
            (X, U._replace(nbytes=-4)),
            r"tensors\[1\].nbytes of 'u' must be finite and >= 0, got -4",
        ),
        (
            LAYERS,
            (X, U._replace(producer=3)),
            r"tensors\[1\] 'u': producer must be in \[-1, 3\).*, got 3",
        ),
        (
            LAYERS,
            (X, U._replace(producer=-2)),
            r"tensors\[1\] 'u': producer must be in \[-1, 3\).*, got -2",
        ),
        (
            LAYERS,
            (X, U._replace(consumers=(1, 3))),
            r"tensors\[1\] 'u': consumers must be in \[0, 3\), got 3",
        ),
        (
            LAYERS,
            (X, U._replace(consumers=(-1,))),
            r"tensors\[1\] 'u': consumers must be in \[0, 3\), got -1",
        ),
        (
            LAYERS,
            (X, U, Tensor("back", 2, (1,), 4)),
            r"tensors\[2\] 'back': layer 1 'b' reads it before layer 2 'c' makes it",
        ),
        (
            LAYERS,
            (X, U, Tensor("loop", 1, (1,), 4)),
            r"tensors\[2\] 'loop': layer 1 'b' reads it before layer 1 'b' makes it",
        ),
        (LAYERS, (X, U._replace(consumers=(2,))), r"layers\[1\] 'b' reads no tensor"),
    ],
)
def test_check_names_the_fault(layers, tensors, message):
    with pytest.raises(ValueError, match=message):
        check(LayerGraph(layers, tensors, "layer"))
