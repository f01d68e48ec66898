"""Bytes and memory in closed form, against compiled programs and by hand."""

import jax
import optax
import pytest

from eejax.cotrain import pipeline, tensor
from eejax.cotrain.hybrid import (
    Hybrid,
    hybrid_step,
    make_mesh_of,
    memory,
    nbytes,
    text_model,
    tier_of,
    traffic,
)
from eejax.tiers import collectives

V, SHAPE, TOKENS = 256, tensor.Shape(64, 256, 8, 8, seq=32, layers=4, causal=True), 2048

# By what fills the memory: activations, parameters, gathered operands, one layer a stage,
# chunks, logits.
CASES = [
    (V, SHAPE, TOKENS, Hybrid(2, 2, "1d_sp", (2,), microbatches=8)),
    (1024, tensor.Shape(64, 256, 4, 2, 16, 4, True), 512, Hybrid(4, 2, microbatches=2)),
    (V, SHAPE, TOKENS, Hybrid(1, 2, "2d", (2, 2), "gpipe", microbatches=4)),
    (V, SHAPE, TOKENS, Hybrid(2, 4, schedule="one_f_one_b", microbatches=8)),
    (V, SHAPE, TOKENS, Hybrid(2, 2, "fsdp", (2,), "interleaved", 2, 4)),
    (
        2048,
        tensor.Shape(32, 128, 4, 4, 128, 2, True),
        4096,
        Hybrid(1, 1, "3d", (2, 2, 2), "fused", 1, 8),
    ),
]


@pytest.mark.parametrize(
    ("v", "shape", "tokens", "hybrid"), CASES, ids=lambda x: getattr(x, "scheme", "")
)
def test_bytes_are_exact_and_memory_is_near(v, shape, tokens, hybrid):
    mesh, model = make_mesh_of(hybrid), text_model(v, shape)
    init, step = hybrid_step(model, hybrid, mesh, optax.adam(1e-3))
    ids = jax.ShapeDtypeStruct((tokens,), "int32")
    data = jax.eval_shape(
        lambda x: pipeline.microbatches({"inputs": x, "labels": x}, hybrid.microbatches), ids
    )
    compiled = step.lower(init(jax.random.key(0)), data).compile()

    found, tier = collectives(compiled, mesh), tier_of(hybrid)
    want, sent = nbytes(hybrid, model, tokens), {}
    for axis, number in found.by_tier.items():
        sent[tier[axis]] = sent.get(tier[axis], 0.0) + number
    assert sent == {name: number for name, number in want.items() if number}

    size = compiled.memory_analysis()
    real = size.argument_size_in_bytes + size.temp_size_in_bytes
    real += size.output_size_in_bytes - size.alias_size_in_bytes
    assert memory(hybrid, model, tokens).total == pytest.approx(real, rel=0.15)


def test_message_and_gradients_by_hand():
    hybrid = Hybrid(data=4, stages=2, microbatches=2)
    sent = traffic(hybrid, text_model(V, SHAPE), TOKENS)
    # 2048 tokens over 4 copies and 2 micro-batches, 64 floats each.
    assert sent.message == 4 * 256 * 64
    h, f = 64, 256
    layer = 4 * h * h + 3 * h + h + 2 * h * f + f + h + 4 * h - h  # Keys have no bias.
    ends = 2 * V * h + SHAPE.seq * h + 2 * h
    both = 2  # The loss and the number of labels.
    assert sent.once["data",] == 4 * 2 * 3 / 4 * (2 * layer + ends + both)
    assert sent.layers == (0, 0)
