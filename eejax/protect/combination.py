"""Which protections, codecs and engines cannot work together, and why."""

from collections.abc import Iterable

_NEED_EACH = {
    "krum": "it compares uploads one by one",
    "multi_krum": "it compares uploads one by one",
    "trimmed_mean": "it sorts the values of single uploads",
    "median": "it sorts the values of single uploads",
    "bulyan": "it compares uploads one by one",
    "fltrust": "it compares each upload with the server's own",
    "norm_bound": "it measures each upload; let clients clip theirs instead",
}
_SKETCH = "decoding takes medians, so what a sum of tables restores is no sum of what each restores"
_NO_SUM = {
    "topk": "the positions differ from client to client, so masked vectors do not line up",
    "sketch": _SKETCH,
    "count_sketch": _SKETCH,
    "int8": "every client has a scale of its own, so the sum of codes is not a code of the sum",
    "int4": "every client has a scale of its own, so the sum of codes is not a code of the sum",
    "affine": "every client has a scale of its own, so the sum of codes is not a code of the sum",
    "zlib": "compressed bytes cannot be added, and masked ones do not compress",
    "deflate": "compressed bytes cannot be added, and masked ones do not compress",
}
_NO_ROUND = {
    "fedasync": "an upload is applied on its own, so the sum is the upload",
    "fedbuff": "masks are agreed by the clients of one round, and those of a buffer began apart",
    "gossip": "neighbours exchange models with no server to sum them",
    "ring": "neighbours exchange models with no server to sum them",
    "fedfomo": "clients weigh the models of single others",
}


def refuse(
    *,
    secure_aggregation: bool = False,
    user_level_dp: bool = False,
    aggregator: str = "mean",
    codec: str = "identity",
    engine: str = "flat",
) -> None:
    """Refuses what cannot work, before a run begins.

    Args:
      secure_aggregation: whether the server sees only sums.
      user_level_dp: whether the server adds noise to the mean, by `user_level_dp`.
      aggregator: name of the rule of aggregation, such as ``"multi_krum"``.
      codec: of the uploads, in the form of `codec_from_name`, such as ``"topk:0.1+int8"``.
      engine: name of the engine or algorithm, such as ``"fedasync"``.

    Raises:
      ValueError: names every combination that cannot work and the reason.

    Example:
      >>> refuse(secure_aggregation=True, codec="bf16", engine="hierfavg")
      >>> refuse(secure_aggregation=True, aggregator="krum")
      Traceback (most recent call last):
      ValueError: secure aggregation cannot work with krum: it compares uploads one by one
    """
    rule, codecs, engine = _name(aggregator), [_name(c) for c in codec.split("+")], _name(engine)
    faults = []
    if secure_aggregation:
        faults += _reasons("secure aggregation", [rule], _NEED_EACH)
        faults += _reasons("secure aggregation", codecs, _NO_SUM)
        faults += _reasons("secure aggregation", [engine], _NO_ROUND)
    if user_level_dp:
        why = "the noise is made for a mean, which no client moves further than its clipped upload"
        faults += _reasons("user-level privacy", [rule], dict.fromkeys(_NEED_EACH, why))
        why = "the account needs rounds whose clients are drawn at random"
        apart = dict.fromkeys(("fedasync", "fedbuff", "gossip", "ring", "fedfomo"), why)
        faults += _reasons("user-level privacy", [engine], apart)
    if faults:
        raise ValueError("; ".join(faults))


def _name(text: str) -> str:
    return text.partition(":")[0].strip().lower().replace("-", "_").replace(" ", "_")


def _reasons(what: str, names: Iterable[str], reasons: dict[str, str]) -> list[str]:
    return [f"{what} cannot work with {n}: {reasons[n]}" for n in names if n in reasons]
