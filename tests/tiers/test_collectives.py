"""The counter of collectives against numbers worked out by hand, on texts and on real programs."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from eejax.tiers import collectives, make_mesh

MESH = {"edge": 2, "end": 4}
BOTH = ("edge", "end")
N = 4096  # Bytes of the local operand, 1024 floats.


def text(*lines, computations=""):
    """A program over 8 devices with these lines in its entry."""
    body = "\n".join(f"  %v.{i} = {line}" for i, line in enumerate(lines))
    return (
        "HloModule m, is_scheduled=true, num_partitions=8\n\n"
        f"{computations}\nENTRY %main.1_spmd (p: f32[1024]) -> f32[1024] {{\n{body}\n}}\n"
    )


# (line, bytes sent by a device, the axes that are spanned)
GOLDEN = {
    "all-reduce": (
        "f32[1024]{0} all-reduce(%p), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add",
        2 * 3 / 4 * N,
        ("end",),
    ),
    "everyone": ("f32[1024]{0} all-reduce(%p), replica_groups={}", 2 * 7 / 8 * N, BOTH),
    "all-gather": (
        "f32[2048]{0} all-gather(%p), replica_groups={{0,4},{1,5},{2,6},{3,7}}, dimensions={0}",
        1 / 2 * 2 * N,
        ("edge",),
    ),
    "iota": (
        "f32[4096]{0} all-gather(%p), replica_groups=[2,4]<=[8], dimensions={0}",
        3 * N,
        ("end",),
    ),
    "iota transposed": (
        "f32[2048]{0} all-gather(%p), replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}",
        N,
        ("edge",),
    ),
    "mesh": (
        "f32[4096]{0} all-gather(%p), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, "
        "dimensions={0}",
        3 * N,
        ("end",),
    ),
    "mesh in another order": (  # The rows of the transposed grid are the pairs of an end.
        "f32[2048]{0} all-gather(%p), channel_id=3, replica_groups=mesh['axis_0'=4,'axis_1'=2], "
        "device_ids=([2,4]T(1,0)) {'axis_1'}, dimensions={0}",
        N,
        ("edge",),
    ),
    "mesh by devices": (
        "f32[2048]{0} all-gather(%p), replica_groups=mesh['a'=4,'b'=2], "
        "device_ids=(0,4,1,5,2,6,3,7) {'b'}, dimensions={0}",
        N,
        ("edge",),
    ),
    "part of a mesh axis": (  # The outer half of eight: strides of four.
        "f32[2048]{0} all-gather(%p), replica_groups=mesh['a'=8] {'a':(1)2}, dimensions={0}",
        N,
        ("edge",),
    ),
    "inner part of a mesh axis": (
        "f32[4096]{0} all-gather(%p), replica_groups=mesh['a'=8] {'a':(2)4}, dimensions={0}",
        3 * N,
        ("end",),
    ),
    "two mesh axes": (
        "f32[1024]{0} all-reduce(%p), replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}",
        2 * 3 / 4 * N,
        BOTH,
    ),
    "reduce-scatter": (
        "f32[256]{0} reduce-scatter(%p), replica_groups=[2,4]<=[8], dimensions={0}",
        3 / 4 * N,
        ("end",),
    ),
    "all-to-all": (
        "(f32[512]{0}, f32[512]{0}) all-to-all(%a, %b), replica_groups={{0,4},{1,5},{2,6},{3,7}}",
        1 / 2 * N,
        ("edge",),
    ),
    "tuple": (
        "(f32[1000]{0:T(256)}, /*index=1*/bf16[48]{0}) all-reduce(%a, %b), replica_groups={}",
        2 * 7 / 8 * (4000 + 96),
        BOTH,
    ),
    "asynchronous gather": (
        "(f32[1024]{0}, f32[4096]{0}) all-gather-start(%p), replica_groups=[2,4]<=[8]",
        3 * N,
        ("end",),
    ),
    "asynchronous gather of two": (
        "((f32[8]{0}, s8[4]{0}), (f32[32]{0}, s8[16]{0})) all-gather-start(%a, %b), "
        "replica_groups=[2,4]<=[8]",
        3 * (32 + 4),
        ("end",),
    ),
    "asynchronous all-reduce": (
        "f32[1024]{0} all-reduce-start(%p), replica_groups=[2,4]<=[8], to_apply=%add",
        2 * 3 / 4 * N,
        ("end",),
    ),
    "permute": (
        "f32[1024]{0} collective-permute(%p), channel_id=1, "
        "source_target_pairs={{0,4},{4,0},{1,5},{5,1},{2,6},{6,2},{3,7},{7,3}}, metadata={}",
        N,
        ("edge",),
    ),
    "asynchronous permute": (
        "(f32[1024]{0}, f32[1024]{0}, u32[], u32[]) collective-permute-start(%p), "
        "source_target_pairs={{0,1},{1,1},{4,5}}",
        N * 2 / 8,  # Two of eight devices send.
        ("end",),
    ),
    "bits": ("s4[100]{0} all-reduce(%p), replica_groups={}", 2 * 7 / 8 * 50, BOTH),
    "eight-bit floats": (
        "f8e4m3fn[8]{0} all-reduce(%p), replica_groups={}",
        2 * 7 / 8 * 8,
        BOTH,
    ),
    "booleans": ("pred[8]{0} all-reduce(%p), replica_groups={}", 2 * 7 / 8 * 8, BOTH),
    "broadcast": (
        "f32[1024]{0} collective-broadcast(%p), replica_groups=[2,4]<=[8]",
        N,
        ("end",),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_bytes_and_axes_by_hand(name):
    line, nbytes, axes = GOLDEN[name]
    found = collectives(text(line), MESH)
    assert found.by_axes == pytest.approx({axes: nbytes})
    assert found.by_tier == pytest.approx({axes[0]: nbytes})
    assert found.total == pytest.approx(nbytes)
    assert list(found.count.values()) == [1]


def test_the_end_of_an_asynchronous_operation_and_groups_of_one_send_nothing():
    done = "f32[4096]{0} all-gather-done(%v)"
    alone = "f32[1024]{0} all-reduce(%p), replica_groups=[8,1]<=[8], to_apply=%add"
    assert collectives(text(done, alone), MESH).ops == ()


def test_a_permute_is_attributed_pair_by_pair():
    line = "f32[1024]{0} collective-permute(%p), source_target_pairs={{0,1},{0,4},{3,6}}"
    found = collectives(text(line), MESH)
    assert found.by_axes == {("end",): N / 8, ("edge",): N / 8, BOTH: N / 8}
    assert found.by_tier == {"end": N / 8, "edge": N / 4}
    assert found.count == {"collective-permute": 1}


BODY = """
%inner_body (p: f32[]) -> f32[] {
  %r = f32[1024]{0} all-reduce(%p), replica_groups=[2,4]<=[8], to_apply=%add
}
%test (p: f32[]) -> pred[] {
  ROOT %t = pred[] compare(%p, %p), direction=LT
}
%outer_body (p: f32[]) -> f32[] {
  %w = (s32[], f32[8]{0}) while(%p), condition=%test, body=%inner_body%KNOWN%
}
"""
TIMES = ', backend_config={"known_trip_count":{"n":"3"},"known_init_step":{"init":"0"}}'
WHILE = "(s32[]) while(%p), condition=%test, body=%outer_body" + TIMES.replace('"3"', '"5"')


def test_loops_inside_loops_multiply():
    found = collectives(text(WHILE, computations=BODY.replace("%KNOWN%", TIMES)), MESH)
    assert found.count == {"all-reduce": 15}
    assert found.total == 15 * 2 * 3 / 4 * N
    assert found.unknown_loops == 0


def test_a_loop_without_a_known_count_is_reported():
    found = collectives(text(WHILE, computations=BODY.replace("%KNOWN%", "")), MESH)
    assert found.count == {"all-reduce": 5}
    assert found.unknown_loops == 1


BRANCHES = """
%small (p: f32[]) -> f32[] {
  %r = f32[8]{0} all-reduce(%p), replica_groups=[2,4]<=[8]
  %s = f32[8]{0} all-reduce(%p), replica_groups=[2,4]<=[8]
}
%large (p: f32[]) -> f32[] {
  %r = f32[1024]{0} all-reduce(%p), replica_groups=[2,4]<=[8]
}
%none (p: f32[]) -> f32[] {
  %r = f32[1024]{0} copy(%p)
}
"""


@pytest.mark.parametrize(
    "branches",
    [
        "branch_computations={%none, %small, %large}",
        "true_computation=%large, false_computation=%small",
    ],
)
def test_of_a_conditional_the_largest_branch_counts(branches):
    line = f"f32[1024]{{0}} conditional(%i, %p, %p), {branches}, metadata={{}}"
    found = collectives(text(line, computations=BRANCHES), MESH)
    assert found.count == {"all-reduce": 1}
    assert found.total == 2 * 3 / 4 * N


def test_called_computations_count():
    lines = (
        "f32[1024]{0} call(%p), to_apply=%large",
        "((f32[]), f32[]) async-start(%p), calls=%large",
        "f32[1024]{0} fusion(%p), kind=kLoop, calls=%none",
    )
    assert collectives(text(*lines, computations=BRANCHES), MESH).count == {"all-reduce": 2}


def test_errors():
    with pytest.raises(ValueError, match="runs on 8 devices"):
        collectives(text(GOLDEN["everyone"][0]), {"end": 4})
    with pytest.raises(ValueError, match="unknown form"):
        collectives(text("f32[8]{0} all-reduce(%p), replica_groups=@grid<a>"), MESH)


def ring(shift=1):
    return [(i, (i + shift) % 4) for i in range(4)]


def scanned(a):
    return jax.lax.scan(lambda c, _: (jax.lax.ppermute(c, "end", ring()) * 2, None), a, length=5)[0]


def hierarchical(a):
    part = jax.lax.psum(jax.lax.psum_scatter(a, "end", tiled=True), "edge")
    return jax.lax.all_gather(part, "end", tiled=True, to="invarying")


def all_to_all(a):
    return jax.lax.all_to_all(a, "end", 0, 0, tiled=True)


def gather_on_one_edge(a):
    def gather():
        return jax.lax.all_gather(a, "end", tiled=True)[:1024]

    return jax.lax.cond(jax.lax.axis_index("edge") > 0, gather, lambda: a)


# The same by a real compiler: (body, bytes by axes, sharding of the result)
REAL = {
    "psum": (lambda a: jax.lax.psum(a, BOTH), {BOTH: 7168}, P()),
    "scan": (scanned, {("end",): 5 * N}, P(BOTH)),
    "hierarchical": (hierarchical, {("end",): 2 * 3072, ("edge",): 1024}, P()),
    "all_to_all": (
        lambda a: jax.lax.all_to_all(a, "end", 0, 0, tiled=True),
        {("end",): 3072},
        P(BOTH),
    ),
    "cond": (gather_on_one_edge, {("end",): 3 * N}, P(BOTH)),
}


@pytest.mark.parametrize("name", REAL)
def test_compiled_programs(name):
    body, expected, out = REAL[name]
    mesh = make_mesh((2, 4), BOTH)
    fn = jax.shard_map(body, mesh=mesh, in_specs=P(BOTH), out_specs=out)
    compiled = jax.jit(fn).lower(jnp.ones(8 * 1024)).compile()
    assert collectives(compiled, mesh).by_axes == expected
