import pytest

from eejax.protect import refuse

RULES = ["krum", "multi-Krum", "trimmed_mean", "median", "bulyan", "FLTrust", "norm_bound"]


@pytest.mark.parametrize("rule", RULES)
def test_rules_that_need_single_uploads(rule):
    refuse(aggregator=rule)
    for what in ("secure_aggregation", "user_level_dp"):
        with pytest.raises(ValueError, match="cannot work with"):
            refuse(**{what: True}, aggregator=rule)


@pytest.mark.parametrize(
    "codec",
    ["topk:0.1", "int8", "topk:0.1+int8", "bf16+zlib:9", "int4", "sketch:0.1", "clip:1+sketch:0.1"],
)
def test_codecs_whose_codes_do_not_add_up(codec):
    refuse(user_level_dp=True, codec=codec)
    with pytest.raises(ValueError, match="secure aggregation cannot work with"):
        refuse(secure_aggregation=True, codec=codec)


@pytest.mark.parametrize("engine", ["fedasync", "fedbuff", "gossip", "ring", "fedfomo"])
def test_engines_without_a_round(engine):
    for what in ("secure_aggregation", "user_level_dp"):
        with pytest.raises(ValueError, match=f"cannot work with {engine}"):
            refuse(**{what: True}, engine=engine)


def test_all_reasons_are_told_at_once_and_the_rest_passes():
    with pytest.raises(ValueError, match=r"krum: .*; .*topk: .*; .*fedasync: "):
        refuse(secure_aggregation=True, aggregator="krum", codec="topk:0.1", engine="fedasync")
    refuse(secure_aggregation=True, user_level_dp=True, codec="bf16", engine="fedavg")


def test_sketches_are_refused_with_their_reason_by_either_name_and_clipped_noise_is_not():
    for codec in ("sketch:0.1+bf16", "count_sketch"):
        with pytest.raises(ValueError, match=r"with (sketch|count_sketch): decoding takes medians"):
            refuse(secure_aggregation=True, codec=codec)
    refuse(secure_aggregation=True, codec="clip:1.0+noise:0.1")
