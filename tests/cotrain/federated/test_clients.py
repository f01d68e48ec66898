"""How many clients are trained at the same time."""

import pytest

from eejax.cotrain.federated.clients import chunk_size


@pytest.mark.parametrize(
    ("order", "clients", "size"),
    [("scan", 8, 1), ("vmap", 8, 8), ("chunk:3", 8, 2), ("chunk:100", 8, 8), ("auto", 8, 1)],
)
def test_chunk_size_divides_the_clients(order, clients, size):
    assert chunk_size(order, clients) == size


@pytest.mark.parametrize("order", ["", "pmap", "chunk:0", "chunk:", "chunk:x", "vmap "])
def test_unknown_orders_are_refused(order):
    with pytest.raises(ValueError, match="none of auto, scan, vmap, chunk:K"):
        chunk_size(order, 8)
