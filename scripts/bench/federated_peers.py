"""Competitors of ``federated.py`` from elsewhere: torch, pfl, fedjax, Flower; needs no eejax.

All but Flower, which draws its own cohorts, train the same clients on the same batches.
"""

import argparse
import itertools
import os

import federated_work as fw
import numpy as np


def torch_model(work):
    """The model with the weights of the work."""
    import torch
    from torch import nn

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    layers, pad = [], 0 if work.model == "cifar" else 1
    for i, (kernel, bias) in enumerate(work.params):
        if kernel.ndim == 4:
            layer = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=pad)
            kernel = kernel.transpose(3, 2, 0, 1)
            layers += [layer, nn.ReLU()] + ([nn.MaxPool2d(2)] if pad or i == 1 else [])
        else:
            if i == 2 and work.params[1][0].ndim == 4:  # From rows, columns, channels.
                channels = work.params[1][0].shape[3]
                side = round((len(kernel) / channels) ** 0.5)
                kernel = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3)
                kernel = kernel.reshape(side * side * channels, -1)
            layer = nn.Linear(*kernel.shape)
            kernel = kernel.T
            layers += [nn.Flatten()] if not any(isinstance(m, nn.Linear) for m in layers) else []
            layers += [layer] + ([nn.ReLU()] if i < len(work.params) - 1 else [])
        layer.weight.data = torch.tensor(kernel.copy())
        layer.bias.data = torch.tensor(bias)
    return nn.Sequential(*layers)


def torch_data(work):
    """Images with channels first, and labels."""
    import torch

    return torch.tensor(work.x.transpose(0, 3, 1, 2).copy()), torch.tensor(work.y).long()


def torch_norm(model):
    """L2 norm of the parameters."""
    return float(np.sqrt(sum(float((p.detach().double() ** 2).sum()) for p in model.parameters())))


def run_torch(work):
    """A plain loop over clients and batches; one model, its weights copied in and out."""
    import torch
    from torch.nn.functional import cross_entropy

    (x, y), model = torch_data(work), torch_model(work)
    params = list(model.parameters())

    def run_round(r):
        start = [p.detach().clone() for p in params]
        total = [torch.zeros_like(p) for p in params]
        for rows in torch.tensor(work.picks[r]).long():
            for p, s in zip(params, start):
                p.data.copy_(s)
            optimiser = torch.optim.SGD(params, work.shape.rate)
            for row in rows:
                optimiser.zero_grad()
                cross_entropy(model(x[row]), y[row]).backward()
                optimiser.step()
            for t, p in zip(total, params):
                t.add_(p.detach(), alpha=1 / work.shape.cohort)
        for p, t in zip(params, total):
            p.data.copy_(t)

    fw.serve(run_round, lambda: torch_norm(model))


def run_pfl(work):
    """pfl: its FederatedAveraging over its SimulatedBackend, in one process."""
    import logging
    import types

    os.environ["PFL_FRAMEWORK"] = "pytorch"
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel
    from torch.nn.functional import cross_entropy

    logging.disable(logging.INFO)
    (x, y), net = torch_data(work), torch_model(work)
    net.loss = types.MethodType(lambda self, x, y, eval=False: cross_entropy(self(x), y), net)
    net.metrics = types.MethodType(lambda self, x, y, eval=True: {}, net)
    order = itertools.chain.from_iterable(work.picks)

    def dataset(rows):
        rows = torch.tensor(rows).long().flatten()
        return Dataset((x[rows], y[rows]))

    users = FederatedDataset(dataset, lambda: next(order))
    model = PyTorchModel(
        net,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(net.parameters(), 1.0),
    )
    told = fw.Told(lambda: torch_norm(net))

    class Talk(TrainingProcessCallback):
        def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
            return not told(), Metrics()

    if told():
        FederatedAveraging().run(
            algorithm_params=NNAlgorithmParams(
                central_num_iterations=len(work.picks),
                evaluation_frequency=10**9,
                train_cohort_size=work.shape.cohort,
                val_cohort_size=None,
            ),
            backend=SimulatedBackend(
                training_data=users, val_data=users, postprocessors=[WeightByDatapoints()]
            ),
            model=model,
            model_train_params=NNTrainHyperParams(
                local_learning_rate=work.shape.rate,
                local_num_epochs=1,
                local_batch_size=work.shape.batch,
            ),
            model_eval_params=NNEvalHyperParams(local_batch_size=400),
            callbacks=[Talk()],
            send_metrics_to_platform=False,
        )


def run_fedjax(work):
    """fedjax: its federated averaging, a compiled step for each batch; native convolutions."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.tree_map = jax.tree_util.tree_map  # fedjax 0.0.17 calls it by its old name.
    import federated_ours as ours
    import fedjax

    def native(x, kernel, padding):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    loss = ours.make_loss(work.model, native)
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        jax.grad(lambda params, batch, rng: loss(params, batch["x"], batch["y"])),
        fedjax.optimizers.sgd(work.shape.rate),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(
            batch_size=work.shape.batch, num_epochs=1, drop_remainder=False, skip_shuffle=True
        ),
    )
    box = [algorithm.init(jax.tree_util.tree_map(jax.numpy.asarray, work.params))]
    keys = jax.random.split(jax.random.PRNGKey(0), work.shape.cohort)

    def run_round(r):
        clients = []
        for number, rows, key in zip(work.cohorts[r], work.picks[r], keys):
            rows = rows.ravel()
            dataset = fedjax.ClientDataset({"x": work.x[rows], "y": work.y[rows]})
            clients.append((str(number), dataset, key))
        box[0], _ = algorithm.apply(box[0], clients)
        jax.block_until_ready(box[0].params)

    fw.serve(run_round, lambda: ours.norm_of(box[0].params))


def run_flower(work, folder, cores):
    """Flower: its FedAvg over messages, one Ray actor a core, torch inside, no evaluation."""
    import logging

    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    import torch
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation
    from torch.nn.functional import cross_entropy

    logging.getLogger("flwr").setLevel(logging.ERROR)
    np.save(os.path.join(folder, "first.npy"), work.x.transpose(0, 3, 1, 2))
    shape, make, small = work.shape, torch_model, work._replace(x=None, y=work.y, picks=None)
    told, net, client = fw.Told(lambda: torch_norm(net)), torch_model(work), ClientApp()

    @client.train()
    def train(msg: Message, context: Context):
        number = int(context.node_config["partition-id"])
        own = slice(number * shape.samples, (number + 1) * shape.samples)
        x = np.load(os.path.join(folder, "first.npy"), mmap_mode="r")[own]
        x, y = torch.tensor(np.array(x)), torch.tensor(small.y[own]).long()
        model = make(small)
        model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        optimiser = torch.optim.SGD(model.parameters(), shape.rate)
        for row in torch.randperm(len(x)).view(-1, shape.batch):
            optimiser.zero_grad()
            cross_entropy(model(x[row]), y[row]).backward()
            optimiser.step()
        sent = {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(x)}),
        }
        return Message(content=RecordDict(sent), reply_to=msg)

    server = ServerApp()

    class Enough(Exception):
        pass

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        def after_round(r, arrays):
            net.load_state_dict(arrays.to_torch_state_dict())
            if not told():
                raise Enough

        strategy = FedAvg(
            fraction_train=shape.cohort / shape.clients,
            fraction_evaluate=0.0,
            min_available_nodes=shape.clients,
        )
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(net.state_dict()),
            num_rounds=len(work.cohorts),
            evaluate_fn=after_round,
        )

    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {
            "num_cpus": len(cores),
            "_node_ip_address": "127.0.0.1",
            "include_dashboard": False,
            "log_to_driver": False,
        },
    }
    run_simulation(server, client, shape.clients, backend_config=backend)


def main():
    """One competitor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("torch", "pfl", "fedjax", "flower"))
    parser.add_argument("work", help="folder of the work")
    parser.add_argument("--cores", type=int, nargs="+", required=True)
    args = parser.parse_args()
    fw.pin(args.cores)
    work = fw.load(args.work)
    if args.name == "flower":
        run_flower(work, os.path.abspath(args.work), args.cores)
    else:
        {"torch": run_torch, "pfl": run_pfl, "fedjax": run_fedjax}[args.name](work)


if __name__ == "__main__":
    main()
