"""What crosses a link: codecs, their chains, and their true size in bytes."""

from eejax.wire.affine import affine
from eejax.wire.cast import cast
from eejax.wire.chain import chain
from eejax.wire.count_sketch import count_sketch
from eejax.wire.deflate import deflate
from eejax.wire.identity import identity
from eejax.wire.names import from_name
from eejax.wire.size import abstract_nbytes, abstract_payload, deserialize, serialize
from eejax.wire.topk import topk

__all__ = [
    "abstract_nbytes",
    "abstract_payload",
    "affine",
    "cast",
    "chain",
    "count_sketch",
    "deflate",
    "deserialize",
    "from_name",
    "identity",
    "serialize",
    "topk",
]
