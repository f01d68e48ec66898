"""Federated runs, on little: every config, every engine, what they cost, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eejax import tiers
from eejax.cotrain.federated import samplers
from eejax.experiment.cli import main
from eejax.experiment.config import load_config
from eejax.experiment.metrics import read_metrics
from eejax.experiment.runs.federated import ALGORITHMS, Adversaries, Data, Federated, System
from eejax.experiment.runs.federated.adversaries import attackers_of
from eejax.experiment.runs.federated.curves import at_equal, first_round
from eejax.experiment.runs.federated.lab import Cell, open_lab, start_of
from eejax.experiment.runs.federated.layouts import drawn
from eejax.experiment.runs.federated.trainer import make_trainer
from eejax.experiment.workdir import RunDir

FOLDER = Path(__file__).parents[2] / "configs" / "federated"
DIGITS = str(FOLDER / "digits.py")
MODEL_BYTES = 4 * (64 * 64 + 64 + 64 * 10 + 10)
SMALL = Federated(rounds=3, epochs=0, steps=2, report_every=3, data=Data(clients=4, train="[:80]"))
CONFIGS = {  # What each must have found, by its tiny form.
    "digits.py": "dirichlet:0.5/fedavg/accuracy",
    "digits_table.py": "classes:1/local_only/accuracy",
    "partial_work.py": "classes:2/fedprox:mu=0.1/accuracy",
    "adaptive.py": "classes:2/fedyogi:server_lr=0.03/rate",
    "hierarchical_bytes.py": "dirichlet:0.3/fedavg@hierarchical:k2=2/top_bytes",
    "async_stragglers.py": "dirichlet:0.3/fedavg@fedbuff:size=5/modelled_s",
    "own_algorithm.py": "classes:2/fedexp/accuracy",
    "robust.py": "dirichlet:0.5/fedavg@krum/accuracy",
    "niid_bench.py": "classes:2/scaffold/accuracy",
    "gossip.py": "dirichlet:0.5/fedavg@gossip:graph=ring/accuracy",
    "private.py": "iid/fedavg@poisson:size=4,bound=1,noise=1,delta=1e-4/epsilon",
    "data_sharing.py": "classes:1/fedavg@flat:share=1/accuracy",
}


def run(config, folder, *options):
    assert main(["run", config, "--workdir", str(folder), "--quiet", *options]) == 0
    return json.loads((folder / "summary.json").read_text())


def attacked(how):
    return ["--config.adversaries.attack", how, "--config.adversaries.clients=3"]


def trainer_of(text, config=SMALL, **fields):
    lab = open_lab(replace(config, methods=(text,), **fields), ALGORITHMS)
    cell = Cell(config.data.partitions[0], lab.methods[0], 0)
    return make_trainer(lab, cell), start_of(lab, cell)


def trained(trainer, rounds, lr=0.1):
    state, loss = trainer.advance(lr, trainer.first(), rounds)
    return state, loss, trainer.accuracy(lr, state)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.slow
def test_a_config_runs(name, tmp_path):
    summary = run(f"{FOLDER / name}:tiny", tmp_path / "run")
    assert summary[CONFIGS[name]] > 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<svg" in page
    assert "Messages of all trainings" in page


def test_all_configs_are_here():
    assert sorted(p.name for p in FOLDER.glob("*.py")) == sorted(CONFIGS)


def test_a_resumed_run_is_bit_identical(tmp_path):
    options = ["--config.rounds=6", "--config.report-every=2", "--config.methods", "scaffold",
               "--config.codec=topk:0.5"]  # fmt: skip
    run(f"{DIGITS}:tiny", tmp_path / "whole", *options)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("summary.json", "report.html", "checkpoints/00000003"):
        path = tmp_path / "cut" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(f"{DIGITS}:tiny", tmp_path / "cut", "--resume", *options)
    for name in ("summary.json", "metrics.jsonl", "results.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = read_metrics(RunDir(tmp_path / "cut"))
    assert [row["round"] for row in rows] == [2, 4, 6]
    assert rows[2]["bytes"] == 3 * rows[0]["bytes"] > 0


def test_comparison_tunes_every_method_alike(tmp_path):
    run(f"{DIGITS}:tiny", tmp_path / "run", "--config.methods", "fedavg", "fedavgm:lr=0.01",
        "local_only", "--config.seeds", "0", "1", "--config.rates", "1e-4", "0.1")  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    rates = results["rates"]
    assert sorted(rates) == ["dirichlet:0.5/fedavg", "dirichlet:0.5/local_only"]
    assert all([rate for rate, _ in found["trials"]] == [1e-4, 0.1] for found in rates.values())
    assert rates["dirichlet:0.5/fedavg"]["chosen"] == 0.1  # The other learns nothing in 4 rounds.
    assert len(results["curves"]) == 6
    page = (tmp_path / "run" / "report.html").read_text()
    assert "chosen for each method and partition by 2 trials" in page


@pytest.mark.parametrize(
    "text",
    ["fedavg", "scaffold@sampled:size=2", "fedavg@semi:deadline_s=1,quorum=2", "fedprox@fedasync",
     "fedavg@fedbuff:size=2,concurrency=3", "fednova@hierarchical:k2=2", "fedavg@central",
     "fedavg@gossip:graph=star", "scaffold@poisson:size=2,bound=1,noise=0.1",
     "fedavg@sampled:size=2,secure=1"],
)  # fmt: skip
def test_every_engine_trains_and_may_be_cut(text):
    trainer, _ = trainer_of(text)
    whole, loss, accuracy = trained(trainer, 2)
    state, _ = trainer.advance(0.1, trainer.first(), 1)
    state, again = trainer.advance(0.1, state, 1)
    assert loss == pytest.approx(again, abs=1e-6) or "@fed" in text  # Their loss is a mean.
    for a, b in zip(jax.tree.leaves(whole.server), jax.tree.leaves(state.server), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert 0.1 < accuracy < 1
    assert np.isfinite(loss)


@pytest.mark.parametrize("text", sorted(ALGORITHMS))
def test_every_algorithm_can_be_named(text):
    trainer, start = trainer_of(text)
    assert jax.tree.leaves(trainer.first())
    assert start.sizes.up == {"scaffold": 2 * MODEL_BYTES, "local_only": 0}.get(
        text, start.sizes.up
    )


def test_personal_models_are_tested_on_their_clients_samples():
    config = replace(SMALL, rounds=3, data=Data(clients=10, partitions=("classes:1",),
                                                held_out=0.25, train="[:200]"))  # fmt: skip
    _, _, alone = trained(trainer_of("local_only", config)[0], 3, lr=0.5)
    _, _, together = trained(trainer_of("fedavg", config)[0], 3, lr=0.5)
    assert alone == 1  # It knows one class, and sees no other.
    assert together < 0.9


def test_bytes_and_seconds_of_synchronous_rounds():
    trainer, start = trainer_of("fedavg")
    bill, turn = trainer.bill, start.turn
    # Both links, both ways.
    assert bill.nbytes().tolist() == [n * 4 * 4 * MODEL_BYTES for n in (1, 2, 3)]
    assert bill.nbytes("cloud")[-1] == bill.nbytes()[-1] / 2
    slowest = float((turn.down_s + turn.train_s + turn.up_s).max())
    np.testing.assert_allclose(bill.seconds, slowest * np.arange(1, 4))
    assert (np.diff(bill.joules) > 0).all()
    assert tiers.total_bytes(bill.ledger(2)) == bill.nbytes()[1]


def test_the_wide_area_link_carries_one_model_for_each_edge():
    bill = trainer_of("fedavg@hierarchical:k2=5")[0].bill
    assert bill.nbytes("cloud").tolist() == [n * 2 * 2 * MODEL_BYTES for n in (1, 2, 3)]
    below = bill.nbytes() - bill.nbytes("cloud")
    assert below.tolist() == [n * 5 * 4 * 2 * MODEL_BYTES for n in (1, 2, 3)]


def test_samples_are_paid_once_in_one_place():
    bill = trainer_of("fedavg@central")[0].bill
    assert bill.nbytes().tolist() == [2 * 80 * 65] * 3  # 64 pixels and a label, over two links.


def test_slow_clients_miss_the_deadline():
    system = System(slow=0.5, slowdown=100.0)
    trainer, start = trainer_of("fedavg@semi:deadline_s=0.3", system=system)
    turn = start.turn
    late = (turn.down_s + turn.train_s + turn.up_s) > 0.3
    assert late.sum() == 2
    np.testing.assert_allclose(trainer.bill.seconds, [0.3, 0.6, 0.9])
    up = [m.count[-1] for m in trainer.bill.messages if m.source == "end"]
    assert up == [2 * 3]
    assert trainer_of("fedavg", system=system)[0].bill.seconds[0] > 1


def test_a_limit_of_seconds_stops_every_method(tmp_path):
    summary = run(f"{DIGITS}:tiny", tmp_path / "run", "--config.seconds=0.5", "--config.epochs=0",
                  "--config.rounds=9", "--config.report-every=1", "--config.methods", "fedavg",
                  "fedavg@fedbuff")  # fmt: skip
    for method in ("fedavg", "fedavg@fedbuff"):
        assert 0.2 < summary[f"dirichlet:0.5/{method}/modelled_s"] <= 0.5


def test_priced_cohorts_are_those_that_train():
    trainer, start = trainer_of("ditto@sampled:size=2")
    counts = start.split.train.counts
    told = drawn(samplers.uniform(2), start.key, 3, counts, start.local)
    assert told.sum(1).tolist() == [2, 2, 2]
    state = trainer.first()
    for chosen in told:
        own = np.asarray(jax.tree.leaves(state.clients.state)[0][0]).copy()
        state, _ = trainer.advance(0.1, state, 1)
        new = np.asarray(jax.tree.leaves(state.clients.state)[0][0])
        moved = (new != own).reshape(len(counts), -1).any(1)
        assert moved.tolist() == chosen.tolist()


def test_shared_samples_reach_every_client_and_are_paid():
    data = Data(clients=4, train="[:80]", partitions=("classes:3",), shared=0.25)
    trainer, start = trainer_of("fedavg@flat:share=0.5", replace(SMALL, data=data))
    plain, other = trainer_of("fedavg", replace(SMALL, data=data))
    assert len(start.split.shared) == 16  # 16 = 0.25 * 64.
    assert (start.split.train.counts - other.split.train.counts).tolist() == [8] * 4
    assert other.split.train.counts.sum() == 64
    more = trainer.bill.nbytes() - plain.bill.nbytes()
    assert more.tolist() == [2 * 4 * 8 * 65] * 3
    lossy = replace(SMALL, data=data, system=System(dropout=0.2))
    bills = [trainer_of(text, lossy)[0].bill for text in ("fedavg@flat:share=0.5", "fedavg")]
    assert (bills[0].nbytes() - bills[1].nbytes()).tolist() == more.tolist()


def test_who_resists_an_attack_and_who_does_not():
    config = replace(
        SMALL, rounds=10, steps=5, report_every=10, data=Data(clients=7, partitions=("iid",)),
        adversaries=Adversaries("sign_flip:20", clients=2),
    )  # fmt: skip
    found = {
        text: trained(trainer_of(text, config)[0], 10)[2]
        for text in ("fedavg", "fedavg@sampled:size=7", "fedavg@trimmed_mean", "fedavg@krum",
                     "fedavg@central")
    }  # fmt: skip
    assert max(found["fedavg"], found["fedavg@sampled:size=7"]) < 0.3
    assert min(found["fedavg@trimmed_mean"], found["fedavg@krum"]) > 0.6
    honest = replace(config, adversaries=Adversaries())
    assert found["fedavg@central"] == trained(trainer_of("fedavg@central", honest)[0], 10)[2]


def test_attackers_are_drawn_by_the_seed():
    config = Federated(adversaries=Adversaries("sign_flip", clients=3))
    drawn_by = [attackers_of(config, seed) for seed in range(4)]
    assert all(who.sum() == 3 and who.shape == (10,) for who in drawn_by)
    assert len({who.tobytes() for who in drawn_by}) > 1
    assert (attackers_of(config, 0) == drawn_by[0]).all()


def test_accuracy_at_equal_cost():
    def curve(*points):
        return [{"bytes": b, "accuracy": a, "round": i} for i, (b, a) in enumerate(points)]

    cheap, dear = curve((1, 0.2), (2, 0.5), (3, 0.6)), curve((4, 0.7), (8, 0.9))
    assert at_equal([[cheap], [dear]], "bytes") == (3, [[0.6], [None]])
    assert first_round(cheap, 0.5) == 1
    assert first_round(cheap, 0.9) is None


def test_the_own_algorithm_extrapolates():
    _, run_own = load_config(str(FOLDER / "own_algorithm.py"))
    fedexp, upload = (run_own.__globals__[name] for name in ("fedexp", "ExpUpload"))
    algorithm = fedexp(None, optax.sgd(0.1), eps=0.0)
    state = algorithm.init(jnp.array(0.0))
    for square, step in ((8.0, 4.0), (1.0, 1.0)):  # 8 / (2 * 1), and never less than 1.
        mean = upload(jnp.array(1.0), jnp.array(square))
        new = algorithm.server_update(state, mean)
        assert float(algorithm.broadcast(new)) == step
        assert float(run_own.__globals__["mean_of_two"](new)) == step / 2


@pytest.mark.slow  # A quarter of a minute to a minute.
def test_the_orderings_of_the_digits_table(tmp_path):
    """At one learning rate, as in the published comparison of the same set-up."""
    methods = ["fedavg", "fedprox:mu=0.1", "fedadam:server_lr=0.03", "scaffold", "local_only",
               "fine_tune"]  # fmt: skip
    found = run(str(FOLDER / "digits_table.py"), tmp_path / "run", "--config.rates",
                "--config.methods", *methods, "--config.data.partitions", "classes:2",
                "classes:1", "--config.report-every=10")  # fmt: skip
    two, one = (
        {m: 100 * found[f"{p}/{m}/accuracy"] for m in methods} for p in ("classes:2", "classes:1")
    )
    for of in (two, one):
        assert min(of["scaffold"], of["fedadam:server_lr=0.03"]) > of["fedavg"] + 2
        assert of["fedprox:mu=0.1"] == pytest.approx(of["fedavg"], abs=1)
        assert of["fine_tune"] > of["scaffold"] + 1
        assert of["local_only"] > 99
        assert of["scaffold"] > 90
    assert two["fedavg"] == pytest.approx(90.4, abs=3)
    assert two["scaffold"] == pytest.approx(96.1, abs=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config.methods", "fedavgg"], "algorithm 'fedavgg' in 'fedavgg' is none of"),
        (["--config.methods", "scafold"], "did you mean 'scaffold'"),
        (["--config.methods", "fedavg@semy"], "did you mean 'semi'"),
        (["--config.methods", "fedprox:nu=1"], "did you mean 'mu'"),
        (["--config.methods", "fedprox:mu=x"], "mu in 'fedprox:mu=x' must be a number"),
        (["--config.methods", "fedprox:lr=0"], "lr must be above 0"),
        (["--config.methods", "fedavg@sampled:size=99"], "size must be a whole number"),
        (["--config.methods", "fedavg@fedbuff"], "epochs must be 0"),
        (["--config.methods", "fedadam@fedbuff", "--config.epochs=0"], "a server of its own"),
        (["--config.methods", "ditto@central"], "central trains one model"),
        (["--config.methods", "fedavg@flat:drop=1"], "drop=1 needs stragglers"),
        (["--config.methods", "fedavg@flat:share=1"], "share needs data.shared"),
        (["--config.methods", "fedavg", "fedavg"], "methods holds 'fedavg' twice"),
        (["--config.model=mlq:64"], "did you mean 'mlp:WIDTH,...'"),
        (["--config.model=mlp:x"], "model 'mlp:x'"),
        (["--config.model=lenet"], "model 'lenet': kernel (3, 3, 24, 64) does not fit into x"),
        (["--config.codec=int7"], "did you mean"),
        (["--config.data.name=digit"], "did you mean 'digits'"),
        (["--config.data.partitions", "dirichle:1"], "did you mean"),
        (["--config.data.held-out=1"], r"data.held_out must be in [0, 1)"),
        (["--config.system.end-edge=wify"], "did you mean 'wifi'"),
        (["--config.system.dropout=0.5", "--config.methods", "fedavg@central"], "loses nothing"),
        (["--config.rounds=0"], "rounds must be at least 1"),
        (["--config.rates", "0.1", "--config.validation=0"], "validation must be above 0"),
        (["--config.adversaries.clients=5"], "fewer than half of 10, got 5"),
        (["--config.adversaries.clients=3"], "must be given together, got '' and 3"),
        (attacked("sign_flop"), "did you mean 'sign_flip'"),
        (attacked("gaussian"), "adversaries.attack 'gaussian': it is none of label_flip"),
        (attacked("gaussian:much"), "could not convert string to float: 'much'"),
        ([*attacked("sign_flip"), "--config.methods", "fedavg@hierarchical"], "one by one"),
        (["--config.methods", "fedavg@krum:f=4"], "fedavg@krum:f=4': krum against f=4"),
    ],
)
def test_wrong_fields_are_named(capsys, tmp_path, options, message):
    assert main(["run", DIGITS, "--workdir", str(tmp_path / "run"), *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
