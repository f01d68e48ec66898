"""Protections and surroundings of federated runs: privacy, masks, label flips, gossip, traces."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy.stats import norm

from eejax import data as eejax_data
from eejax import protect
from eejax.cotrain.federated import samplers
from eejax.experiment.cli import main
from eejax.experiment.metrics import read_metrics
from eejax.experiment.runs.federated import (
    ALGORITHMS,
    Adversaries,
    Data,
    Federated,
    System,
    samples,
)
from eejax.experiment.runs.federated.adversaries import attackers_of
from eejax.experiment.runs.federated.lab import Cell, open_lab, start_of
from eejax.experiment.runs.federated.protection import private_of
from eejax.experiment.runs.federated.trainer import make_trainer
from eejax.experiment.workdir import RunDir

SMALL = Federated(
    rounds=3, epochs=0, steps=2, report_every=3, model="logistic",
    data=Data(clients=4, train="[:80]", partitions=("iid",)),
)  # fmt: skip
ELEMENTS = 64 * 10 + 10


def trainer_of(text, config=SMALL, seed=0, lab=None, **fields):
    lab = lab or open_lab(replace(config, methods=(text,), **fields), ALGORITHMS)
    cell = Cell(lab.config.data.partitions[0], lab.methods[0], seed)
    return make_trainer(lab, cell), start_of(lab, cell)


def trained(text, config=SMALL, rounds=3, lr=0.1, **more):
    trainer, _ = trainer_of(text, config, **more)
    state, _ = trainer.advance(lr, trainer.first(), rounds)
    return state, trainer


def close(a, b, atol=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol)


def distance(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.subtract(x, y)).max()) for x, y in leaves)


@pytest.fixture(scope="module")
def plain():
    return trained("fedavg")


def test_masks_change_nothing_but_bytes(plain):
    masked, _ = trained("fedavg@flat:secure=1")
    close(masked.server.params, plain[0].server.params)
    for engine, cohort in (("flat", 4), ("sampled:size=3", 3)):
        bare, _ = trainer_of(f"fedavg@{engine}")
        trainer, _ = trainer_of(f"fedavg@{engine}{',' if ':' in engine else ':'}secure=1")
        up, down = protect.secagg_nbytes(cohort, ELEMENTS + 1)
        more = trainer.bill.nbytes() - bare.bill.nbytes()
        assert more.tolist() == [n * 2 * cohort * (up + down - 4 * ELEMENTS) for n in (1, 2, 3)]


def test_a_bound_alone_clips_and_hides_nobody(plain):
    wide, trainer = trained("fedavg@flat:bound=1000")
    close(wide.server.params, plain[0].server.params)  # Clients hold equally many samples.
    assert trainer.spent(wide) == {}
    tight, _ = trained("fedavg@flat:bound=0.01")
    moved = [np.square(x).sum() for x in jax.tree.leaves(tight.server.params)]  # From zero.
    assert 0.01 < float(np.sqrt(sum(moved))) <= 3 * 0.01 * (1 + 1e-5)


def test_the_noise_keeps_the_budget():
    (method,) = open_lab(
        replace(SMALL, methods=("fedavg@flat:bound=1,epsilon=4,delta=1e-4",)), ALGORITHMS
    ).methods
    private = private_of(SMALL, method, np.full(4, 20))
    assert private.epsilon(SMALL.rounds) == pytest.approx(4, abs=0.01)
    assert private.epsilon(1) < 3


def test_the_account_is_that_of_who_takes_part():
    state, trainer = trained("fedavg@poisson:size=2,bound=0.5,noise=1.5,delta=1e-4", rounds=1)
    first = trainer.spent(state)["epsilon"]
    state, _ = trainer.advance(0.1, state, 2)
    assert 0 < first < trainer.spent(state)["epsilon"]
    how = protect.sampling("poisson", "add or remove one", clients=4, cohort=2)
    expected = protect.epsilon(protect.PrivacySpent(3, 1.5, 0.5), how, 1e-4)
    assert trainer.spent(state)["epsilon"] == pytest.approx(expected, rel=1e-6)
    assert float(state.server.spent.noise_multiplier) == 1.5


@pytest.mark.parametrize(
    ("engine", "sampler"),
    [("sampled:size=2", samplers.uniform(2)), ("poisson:size=2", samplers.poisson(0.5))],
)
def test_the_account_is_of_the_sampler_that_draws(engine, sampler):
    lab = open_lab(replace(SMALL, methods=(f"fedavg@{engine},bound=1,noise=1",)), ALGORITHMS)
    private = private_of(lab.config, lab.methods[0], np.full(4, 20))
    protect.check_sampler(private.how, sampler)
    assert private.how.clients == 4
    assert private.how.cohort == 2


def test_everybody_in_every_round_is_a_rate_of_one():
    (method,) = open_lab(
        replace(SMALL, methods=("fedavg@flat:bound=1,noise=1",)), ALGORITHMS
    ).methods
    private = private_of(SMALL, method, np.array([20, 0, 3, 7]))
    assert (private.how.rate, private.how.clients) == (1, 3)
    # Three releases are one of noise sigma / sqrt(3), whose delta at any epsilon is known.
    sigma, epsilon = 3**-0.5, private.epsilon(3)
    a, b = (norm.cdf(sign / (2 * sigma) - epsilon * sigma) for sign in (1, -1))
    assert a - np.exp(epsilon) * b == pytest.approx(1e-5, rel=1e-4)


def test_seeds_have_noise_of_their_own_and_one_program():
    text = "fedavg@poisson:size=2,bound=0.5,noise=1"
    lab = open_lab(replace(SMALL, methods=(text,), seeds=(0, 1)), ALGORITHMS)
    states = [trained(text, seed=seed, lab=lab)[0] for seed in (0, 1, 0)]
    close(states[0].server, states[2].server, atol=0)
    assert distance(states[0].server.inner, states[1].server.inner) > 0.1
    assert len([name for name in lab.programs if "train" in name]) == 1


def test_a_private_and_masked_run_tells_its_epsilon_and_goes_on(tmp_path):
    method = "fedavg@poisson:size=2,bound=0.5,noise=1,secure=1"

    def run(folder, *options):
        arguments = ["configs/federated/digits.py:tiny", "--config.rounds=4", "--config.methods",
                     method, "--config.report-every=2", "--config.data.clients=4",
                     "--config.model=logistic", "--config.data.partitions", "iid"]  # fmt: skip
        assert main(["run", *arguments, "--workdir", str(folder), "--quiet", *options]) == 0
        return json.loads((folder / "summary.json").read_text())

    found = run(tmp_path / "whole")
    first, last = read_metrics(RunDir(tmp_path / "whole"))
    assert 0 < first["epsilon"] < last["epsilon"] == found[f"iid/{method}/epsilon"]
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "by poisson, 2 of 4 clients; neighbours add or remove one; delta 1e-05" in page

    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("summary.json", "report.html", "checkpoints/00000002"):
        path = tmp_path / "cut" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run(tmp_path / "cut", "--resume") == found


def test_attackers_train_on_flipped_labels_and_nobody_else():
    config = replace(SMALL, adversaries=Adversaries("label_flip", clients=1))
    _, start = trainer_of("fedavg", config)
    _, honest = trainer_of("fedavg")
    old, new = honest.arrays["y"], start.arrays["y"]
    (attacker,) = np.flatnonzero(attackers_of(config, 0))
    table, counts = start.split.train
    mine = table[attacker][: counts[attacker]]
    assert (new[mine] == 9 - old[mine]).all()
    assert (np.delete(new, mine) == np.delete(old, mine)).all()
    _, central = trainer_of("fedavg@central", config)
    assert (central.arrays["y"] == old).all()


def test_label_flips_cost_accuracy_also_without_a_server():
    data = Data(clients=5, train="[:200]", partitions=("iid",))
    config = replace(SMALL, data=data, rounds=10, steps=5)
    poisoned = replace(config, adversaries=Adversaries("label_flip", clients=2))
    clean, bad = (
        trainer.accuracy(0.1, state)
        for state, trainer in (trained("fedavg@gossip", c, 10) for c in (config, poisoned))
    )
    assert clean > bad + 0.03


def test_gossip_on_the_complete_graph_is_the_mean(plain):
    alone, trainer = trained("fedavg@gossip:graph=complete")
    mean, flat = plain  # Clients hold equally many samples.
    for x, y in zip(*map(jax.tree.leaves, (alone.server.params, mean.server.params)), strict=True):
        np.testing.assert_allclose(x, np.broadcast_to(y, x.shape), atol=1e-5)
    assert trainer.accuracy(0.1, alone) == pytest.approx(flat.accuracy(0.1, mean), abs=1e-3)


def test_bytes_and_seconds_of_gossip_on_a_ring():
    trainer, start = trainer_of("fedavg@gossip")
    # Clients 0 and 1 below one edge, 2 and 3 below the other: of 8 messages 4 stay below theirs,
    # and 4 take three hops.
    parents = start.topology.tiers[0].parent
    near = sum(int(parents[i] == parents[(i + d) % 4]) for i in range(4) for d in (1, -1))
    per_round = (near + 3 * (8 - near)) * 4 * ELEMENTS
    assert trainer.bill.nbytes().tolist() == [per_round, 2 * per_round, 3 * per_round]
    assert trainer.bill.nbytes("cloud")[-1] == 0
    more, _ = trainer_of("fedavg@gossip:graph=complete")
    assert more.bill.seconds[0] > trainer.bill.seconds[0] > float(start.turn.train_s.max())
    assert more.bill.joules[0] > trainer.bill.joules[0]


def test_only_who_is_there_takes_part(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("1,1,0,0\n0,0,0,1\n0,0,0,0\n")
    system = System(trace=str(path))
    trainer, start = trainer_of("fedavg", system=system)
    sent = [m.count.tolist() for m in trainer.bill.messages if m.source == "end"]
    assert sent == [[2, 3, 3]]
    turn = start.turn
    needed = (turn.down_s + turn.train_s + turn.up_s)[:2].max()
    assert trainer.bill.seconds[0] == pytest.approx(needed)
    assert trainer.bill.seconds[1] == trainer.bill.seconds[2]
    few, _ = trainer_of("fedavg@sampled:size=1", system=system)
    sent = [m.count.tolist() for m in few.bill.messages if m.source == "end"]
    assert sent == [[1, 2, 2]]
    state = trainer.first()
    params = []
    for _ in range(3):
        state, _ = trainer.advance(0.1, state, 1)
        params.append(jax.device_get(state.server.params))
    assert distance(params[0], params[1]) > 0
    close(params[1], params[2], atol=0)


def test_clients_see_their_own_images_and_the_test_split_is_common():
    fields = {"clients": 4, "partitions": ("iid",), "train": "[:80]", "features": "noise:50"}
    _, start = trainer_of("fedavg", data=Data(**fields))
    _, plain = trainer_of("fedavg")
    assert (start.split.train.table == plain.split.train.table).all()
    moved = np.abs(start.arrays["x"] - plain.arrays["x"]).mean((1, 2, 3)) * 255
    (first, *_, last), counts = start.split.train
    assert not moved[first[: counts[0]]].any()  # Noise rises from none to 50.
    assert 10 < moved[last[: counts[-1]]].mean() < 50
    assert not moved[start.split.test.table].any()
    _, own = trainer_of("ditto", data=Data(**fields, held_out=0.25))
    _, bare = trainer_of("ditto", data=Data(**fields | {"features": ""}, held_out=0.25))
    moved = np.abs(own.arrays["x"] - bare.arrays["x"]).mean((1, 2, 3))
    table, counts = own.split.test
    assert [moved[row[:n]].min() > 0 for row, n in zip(table, counts)] == [False] + [True] * 3


def test_natural_groups_are_clients(monkeypatch):
    digits, original = eejax_data.load("digits"), eejax_data.load
    groups = (np.arange(len(digits.labels)) % 4).astype(np.int32)

    def load(name, split, directory):
        found = original(name, split, directory)
        return found._replace(groups=groups[: len(found.labels)])

    monkeypatch.setattr(samples.data, "load", load)
    _, start = trainer_of("fedavg", data=Data(clients=4, partitions=("natural",), train="[:80]"))
    table, counts = start.split.train
    assert sorted(counts) == [20] * 4
    assert all(len(set(groups[row[:n]])) == 1 for row, n in zip(table, counts))


@pytest.mark.parametrize("text", ["1,1,0\n", "1,1,0,2\n", "", "1;1;0;0\n"])
def test_a_wrong_trace_is_named(tmp_path, text):
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(ValueError, match=r"system.trace: .* lines of 4 numbers"):
        trainer_of("fedavg", system=System(trace=str(tmp_path / "trace.csv")))


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("fedavg@fedbuff:secure=1", {}, "masks are agreed by the clients of one round"),
        ("fedavg@krum:secure=1", {}, "secure aggregation cannot work with krum"),
        ("fedavg@flat:secure=1", {"codec": "topk:0.1"}, "positions differ from client to client"),
        ("fedavg@median:bound=1", {}, "user-level privacy cannot work with median"),
        ("fedavg@gossip:bound=1", {}, "rounds whose clients are drawn at random"),
        ("fedavg@hierarchical:secure=1", {}, "secure works with flat, semi, sampled, poisson"),
        ("fedavg@flat:secure=2", {}, "secure must be 0 or 1"),
        ("fedavg@flat:noise=1", {}, "noise needs a bound above 0"),
        ("fedavg@flat:bound=1,noise=1,epsilon=1", {}, "give noise or epsilon, not both"),
        ("fedavg@flat:bound=-1", {}, "bound must be at least 0"),
        ("fedavg@flat:bound=1,noise=1,delta=1", {}, r"delta must be in \(0, 1\)"),
        ("fedavg@flat:secure=1,limit=0", {}, "limit must be above 0"),
        ("fedavg", {"data": Data(partitions=("natural",))}, "groups must be one a sample"),
        ("fedavg", {"data": Data(features="rotate:9")}, "data.features: .*did you mean 'rotation"),
        ("fedavg@flat:share=1", {"data": Data(shared=0.1, features="noise:9")}, "same samples"),
        ("fedavg@gossip:graph=rings", {}, "did you mean 'ring'"),
        ("fedavg@gossip", {"codec": "int8"}, "codec must be identity"),
        ("ditto@gossip", {}, "gossip trains one model for all"),
        ("fedavg@central:secure=1", {}, "central in 'fedavg@central:secure=1' has no option"),
        ("fedavg@semi", {"system": System(trace="x.csv")}, "system.trace works with flat and"),
        ("fedavg", {"system": System(trace="x.csv", dropout=0.1)}, "cannot be given together"),
        ("fedavg@gossip", {"adversaries": Adversaries("sign_flip", 1)}, "empty or label_flip"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(text, fields, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(text, **fields)


def test_cohorts_of_one_size_need_samples_for_all():
    (method,) = open_lab(
        replace(SMALL, methods=("fedavg@sampled:size=2,bound=1,noise=1",)), ALGORITHMS
    ).methods
    with pytest.raises(ValueError, match=r"needs a poisson engine, or samples .* 1 have none"):
        private_of(SMALL, method, np.array([20, 0, 3, 7]))
