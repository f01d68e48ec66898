"""The config of a hybrid: its mesh, and early refusals that name the field."""

import pytest

from eejax.cotrain import tensor
from eejax.cotrain.hybrid import Hybrid, check_hybrid, make_mesh_of, text_model, tier_of

MODEL = text_model(32, tensor.Shape(16, 32, 4, 2, seq=4, layers=4, causal=True))


def test_mesh_has_the_slowest_axis_outermost():
    hybrid = Hybrid(2, 2, "1d", (2,))
    assert dict(make_mesh_of(hybrid).shape) == {"stage": 2, "data": 2, "t": 2}
    turned = {"cloud": ("data",), "end": ("stage", "tensor")}
    assert dict(make_mesh_of(hybrid, turned).shape) == {"data": 2, "stage": 2, "t": 2}
    assert tier_of(hybrid, turned) == {"data": "cloud", "stage": "end", "t": "end"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scheme": "2d", "grid": (2,)}, r"grid must have 2 sizes.*\('r', 'c'\)"),
        ({"scheme": "2e"}, "did you mean '2d'"),
        ({"data": 0}, "data must be a whole number of at least 1"),
        ({"scheme": "1d", "grid": (0,)}, r"grid\[0\] must be"),
        ({"schedule": "gpip"}, "did you mean 'gpipe'"),
        ({"schedule": "pipedream"}, "schedule must be one of"),
        ({"chunks": 2}, "chunks must be 1"),
        ({"stages": 2, "schedule": "interleaved", "microbatches": 3}, "multiple of stages=2"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Hybrid(**fields)


@pytest.mark.parametrize(
    ("hybrid", "tokens", "message"),
    [
        (Hybrid(stages=3), 128, "layers=4 cannot be cut"),
        (Hybrid(data=2, microbatches=3), 128, "data x microbatches = 2 x 3"),
        (Hybrid(scheme="1d", grid=(4,)), 128, "kv_heads=2 cannot be split over t=4"),
        (Hybrid(scheme="dp", grid=(2,), microbatches=32), 128, "sequences=1 cannot be split"),
    ],
)
def test_sizes_that_do_not_divide_are_named(hybrid, tokens, message):
    with pytest.raises(ValueError, match=message):
        check_hybrid(hybrid, MODEL, tokens)
