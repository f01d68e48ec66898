"""Layouts: what moves follows from specs, and wrong input is refused by name."""

import pytest
from jax.sharding import PartitionSpec as P

from eejax.cotrain.tensor import SCHEMES, Move, Plan, check, layout

# What each scheme is known to move: gathers of x, gathers of w, reductions of y; up, then down.
MOVES = {
    "serial": (((), (), ()), ((), (), ())),
    "dp": (((), (), ()), ((), (), ())),
    "fsdp": (((), (("d", -2),), ()), ((), (("d", -1),), ())),
    "1d": (((), (), ()), ((), (), (("t", None),))),
    "1d_sp": (((("t", 0),), (), ()), ((), (), (("t", 0),))),
    "2d": (((("c", -1),), (("r", -2),), ()),) * 2,
    "2d_opt": (((("c", -1),), (("r", -2),), ()), ((), (("r", -1),), (("c", -1),))),
    "2.5d": (((("c", -1),), (("r", -2),), ()),) * 2,
    "3d": (
        ((("j", 0),), (("i", -2),), (("l", 0),)),
        ((("l", 0),), (("i", -2),), (("j", 0),)),
    ),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_moves(scheme):
    lo = layout(scheme)
    for plan, moves in zip((lo.up, lo.down), MOVES[scheme]):
        expected = [tuple(Move((axis,), dim) for axis, dim in group) for group in moves]
        assert [plan.gather_x, plan.gather_w, plan.reduce] == expected


@pytest.mark.parametrize("scheme", SCHEMES)
def test_names_and_batch_axes(scheme):
    letters = layout(scheme).axes
    lo = layout(scheme, [f"axis_{a}" for a in letters], batch=("pod", "data"))
    assert lo.axes == tuple(f"axis_{a}" for a in letters)
    for spec in (lo.act, lo.inner):
        assert spec[0] == ("pod", "data") or spec[0][:2] == ("pod", "data")
    assert not any(a in str((lo.w_up, lo.w_down)) for a in ("pod", "data"))
    # A batch around a layout moves nothing but gradients.
    assert len(lo.up.gather_x) == len(layout(scheme).up.gather_x)


def test_special_cases():
    """2.5-D is 2-D with the depth as batch; 2d_opt holds FSDP and 1-D with sequences."""
    tesseract, optimus = layout("2.5d"), layout("2d", batch=("d",))
    assert (tesseract.up, tesseract.down) == (optimus.up, optimus.down)
    ours, fsdp, sp = layout("2d_opt"), layout("fsdp", ("r",)), layout("1d_sp", ("c",))

    def without(plan, axis):
        return [tuple(m for m in moves if m.axes != (axis,)) for moves in moves_of(plan)]

    def moves_of(plan):
        return plan.gather_x, plan.gather_w, plan.reduce

    for name in ("up", "down"):
        assert without(getattr(ours, name), "c") == list(moves_of(getattr(fsdp, name)))
    axes = [[m.axes for m in moves] for moves in without(ours.up, "r")]
    assert axes == [[m.axes for m in moves] for moves in moves_of(sp.up)]


def test_whole_arrays_are_not_moved_by_hand():
    lo = layout("3d").on("a mesh")
    assert (lo.up.gather_x, lo.up.gather_w, lo.up.reduce) == ((), (), ())
    assert (lo.tokens, lo.features, lo.inner_tokens, lo.inner_features) == ((), (), (), ())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layout("2d_optimal"), "scheme must be one of .* did you mean '2d_opt'"),
        (lambda: layout("2d", ("r",)), "scheme '2d' needs 2 axes, got axes=\\('r',\\)"),
        (lambda: layout("2d", ("r", "r")), "axes must differ from each other"),
        (lambda: layout("1d", ("t",), batch=("t",)), "axes must differ from each other"),
        (lambda: Plan(P("a", None), P(None, "b"), P("a", "c")), "no product of x .* lies like y"),
        (
            lambda: check(layout("2d", ("row", "col")), {"row": 2, "cols": 2}),
            "axis 'col' is not in the mesh, .*; did you mean 'cols'?",
        ),
        (
            lambda: check(layout("1d", batch=("data",)), {"t": 2}),
            "axis 'data' is not in the mesh",
        ),
        (
            lambda: check(layout("2d"), {"r": 2, "c": 4}, heads=6),
            "heads=6 cannot be split over c=4; the nearest that can: 4 or 8",
        ),
        (
            lambda: check(layout("2.5d"), {"d": 2, "r": 2, "c": 2}, sequences=2),
            "sequences=2 cannot be split over d=2 x r=2; the nearest that can: 4$",
        ),
        (
            lambda: check(layout("3d"), {"i": 2, "j": 2, "l": 3}, hidden=16),
            "hidden=16 cannot be split over l=3 x i=2; the nearest that can: 12 or 18",
        ),
        (lambda: check(layout("1d"), {"t": 2}, depth=4), "size must be one of .*, got 'depth'"),
        (lambda: check(layout("1d"), {"t": 2}, heads=0), "heads=0 cannot be split"),
    ],
)
def test_errors_are_early_and_name_the_nearest_choice(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_can_be_split_passes():
    check(layout("3d"), {"i": 2, "j": 2, "l": 2}, tokens=8, sequences=4, hidden=16, heads=2)
    check(layout("serial"), {}, tokens=7, heads=3)
