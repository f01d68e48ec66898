"""Modelled cost of a round, against arithmetic by hand."""

import jax
import numpy as np
import pytest

from eejax.cotrain import price_round
from eejax.tiers import Device, Link, Work, make_tier, make_topology, total_bytes
from eejax.wire import affine, from_name, serialize


def device(flops):
    return Device(
        name="d", flops_per_s=flops, memory_bandwidth_bytes_per_s=1e12, memory_bytes=1e9,
        idle_w=1.0, busy_w=3.0, overhead_s=0.0, source="test",
    )  # fmt: skip


LINK = Link(
    name="l", bandwidth_up_bps=8e3, bandwidth_down_bps=16e3, rtt_s=0.2, jitter_s=0, loss=0,
    joules_per_byte_up=0.01, joules_per_byte_down=0.02, source="test",
)  # fmt: skip


def make_test_topology():
    return make_topology(
        make_tier("end", [device(100.0), device(200.0), device(50.0)], LINK, [0, 0, 1]),
        make_tier("edge", device(1e3), LINK, 0, 2),
        make_tier("cloud", device(1e4)),
    )


PARAMS = {"w": jax.ShapeDtypeStruct((250,), np.float32)}  # 1000 bytes.


def test_price_by_hand():
    price = price_round(make_test_topology(), Work(100.0, 1.0), PARAMS, k1=2, k2=3)
    # Down 0.1 + 1000 B / 2000 B/s = 0.6 s, up 0.1 + 1000 / 1000 = 1.1 s; two steps take 2, 1, 4 s.
    # Edge 1 is the slowest: 0.6 + 4 + 1.1 = 5.7 s, three times, and 1.7 s to the cloud and back.
    assert price.seconds == pytest.approx(1.7 + 3 * 5.7)
    # Busy 3 * (2 + 1 + 4) s at 3 W, idle for the rest of 18.8 s at 1 W.
    assert price.joules["end"] == pytest.approx(21 * 3 + (3 * 18.8 - 21) * 1)
    assert price.joules["end-edge"] == pytest.approx(3 * 3 * (20 + 10))
    assert price.joules["edge-cloud"] == pytest.approx(2 * (20 + 10))
    assert total_bytes(price.ledger, "end", "edge") == 3 * 3 * 1000
    assert total_bytes(price.ledger, "edge", "end") == 3 * 3 * 1000
    assert total_bytes(price.ledger, "edge", "cloud") == 2 * 1000
    assert total_bytes(price.ledger, kind="information") == total_bytes(price.ledger)


def test_codecs_change_what_goes_up_only():
    price = price_round(make_test_topology(), Work(100.0, 1.0), PARAMS, k1=1, k2=1, codec=affine(8))
    assert total_bytes(price.ledger, "end", "edge") == 3 * 255  # 250 codes, scale and zero point.
    assert total_bytes(price.ledger, "edge", "end") == 3 * 1000
    assert total_bytes(price.ledger, "edge", "cloud") == 2 * 1000


def test_the_ledger_counts_what_would_really_be_serialised():
    params = {"kernel": np.ones((6, 3), np.float32), "bias": np.ones(3, np.float32)}
    codec = from_name("topk:0.5+int8")
    price = price_round(make_test_topology(), Work(100.0, 1.0), params, k1=1, k2=1, codec=codec)
    _, payload = codec.encode(codec.init(params), params, jax.random.key(0))
    assert total_bytes(price.ledger, "end", "edge") == 3 * len(serialize(payload))
    assert total_bytes(price.ledger, "edge", "end") == 3 * len(serialize(params))


def test_three_tiers_are_needed():
    two = make_topology(make_tier("end", device(1.0), LINK, 0), make_tier("cloud", device(1.0)))
    with pytest.raises(ValueError, match="three tiers, got end, cloud"):
        price_round(two, Work(1.0, 1.0), PARAMS, k1=1, k2=1)
