"""Search spaces whose every plan has been evaluated, with plain PyTorch, so that strategies can be compared by replay.

Each table holds one accuracy and one cost per plan, in the order of `itertools.product` over its decisions (the last
decision fastest), and what each format does to the tensors of the (widest) network in float. Tables take seconds to
half an hour to make on two cores and are kept in a folder of the system's temporary directory (`DOVETAIL_TABLES` points
elsewhere). Some need real data that is not on every machine (`DOVETAIL_DATA`); they are left out there.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rounding import noise_to_signal
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from tabulated_images import Figures, lenet_precision, resnet20_precision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from dovetail.evaluation.rounding_noise import NOISE_SAMPLES

__all__ = ["LONG", "TABLES", "Table", "load_table"]

FORMATS = ((8, 6), (6, 4), (4, 3), (3, 2), (2, 1))
"""(width, frac_width) of the fixed-point formats, from the most precise to the coarsest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A space and what each of its plans scores: `kinds[d]` and `values[d]` say what decision d chooses between,
    `noise[d]` the noise-to-signal ratio of each of these formats (empty of widths)."""

    name: str
    kinds: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    accuracy: NDArray[np.float64]
    cost: NDArray[np.float64]
    noise: tuple[tuple[float, ...], ...]


def quantise(x: Tensor, width: int, frac_width: int) -> Tensor:
    top = 2 ** (width - 1)
    return torch.clamp(torch.round(x * 2.0**frac_width), -top, top - 1) / 2.0**frac_width


def split(inputs: NDArray[np.float64], targets: NDArray[np.int64], train: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shuffled and, by the training part, standardised: train inputs and targets, validation inputs and targets."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(inputs)))
    x, y = torch.tensor(inputs, dtype=torch.float32)[order], torch.tensor(targets)[order]
    mean, std = x[:train].mean(0), x[:train].std(0) + 1e-6
    x = (x - mean) / std / 2  # most values within +-1, where the narrow formats are
    return x[:train], y[:train], x[train:], y[train:]


def train_mlp(x: Tensor, y: Tensor, widths: Sequence[int], *, epochs: int, seed: int = 0) -> list[nn.Linear]:
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    net = nn.Sequential(*itertools.chain.from_iterable((layer, nn.ReLU()) for layer in layers[:-1]), layers[-1])
    optimizer = torch.optim.Adam(net.parameters(), 1e-2, weight_decay=1e-4)
    for _ in range(epochs):
        for i in range(0, len(x), 100):
            optimizer.zero_grad()
            cross_entropy(net(x[i : i + 100]), y[i : i + 100]).backward()
            optimizer.step()
    return layers


def format_noise(
    layers: Sequence[nn.Linear], x: Tensor, formats: Sequence[tuple[int, int]], *, shared_data_in: bool
) -> list[tuple[float, ...]]:
    """What each format does to the tensors of each decision, in the order of `tabulate_formats`."""
    data, weights = [], []
    for depth, layer in enumerate(layers):
        operand = torch.relu(x) if depth else x
        data.append([noise_to_signal(operand, quantise(operand, *f)) for f in formats])
        weights.append([noise_to_signal(layer.weight, quantise(layer.weight, *f), whole=True) for f in formats])
        x = layer(operand)
    if shared_data_in:
        return [tuple(np.mean(data, axis=0).tolist()), *map(tuple, weights)]
    return [tuple(its) for pair in zip(data, weights, strict=True) for its in pair]


def tabulate_formats(
    layers: Sequence[nn.Linear],
    sample: Tensor,
    x: Tensor,
    y: Tensor,
    formats: Sequence[tuple[int, int]],
    *,
    shared_data_in: bool,
) -> Figures:
    """Accuracy and BitOPs of every choice of formats: (data_in, weight) per layer, or one data_in, then weights; and
    the noise of formats on the first of a sample."""
    choices = range(len(formats))
    weights = [[quantise(layer.weight, *f) for f in formats] for layer in layers]
    accuracy: list[float] = []
    cost: list[float] = []

    def descend(depth: int, value: Tensor, bops: float, data_in: int | None) -> None:
        if depth == len(layers):
            accuracy.append((value.argmax(1) == y).double().mean().item())
            cost.append(bops)
            return
        layer = layers[depth]
        hidden = torch.relu(value) if depth else value
        for a in choices if data_in is None else (data_in,):
            operand = quantise(hidden, *formats[a])
            for b in choices:
                spent = formats[a][0] * formats[b][0] * layer.weight.numel()
                descend(depth + 1, linear(operand, weights[depth][b], layer.bias), bops + spent, data_in)

    with torch.no_grad():
        for first in choices if shared_data_in else (None,):
            descend(0, x, 0.0, first)
        noise = format_noise(layers, sample[:NOISE_SAMPLES], formats, shared_data_in=shared_data_in)
    return np.array(accuracy), np.array(cost), noise


def bits(formats: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    return tuple(float(width) for width, _ in formats)


def precision_table(name: str, choices: Sequence[float], figures: Figures) -> Table:
    """Of decisions on precision that all have the same choices."""
    accuracy, cost, noise = figures
    values = (tuple(map(float, choices)),) * len(noise)
    kinds = ("precision",) * len(noise)
    return Table(name=name, kinds=kinds, values=values, accuracy=accuracy, cost=cost, noise=tuple(noise))


def digits_precision() -> Table:
    """64-32-32-10 on handwritten digits; data_in and weight of each layer, five formats: 15,625 plans."""
    x, y = load_digits(return_X_y=True)
    x_train, y_train, x_val, y_val = split(x, y, 1000)
    layers = train_mlp(x_train, y_train, (64, 32, 32, 10), epochs=60)
    figures = tabulate_formats(layers, x_train, x_val, y_val, FORMATS, shared_data_in=False)
    return precision_table("digits-precision", bits(FORMATS), figures)


def wine_precision() -> Table:
    """13-16-16-16-3 on wines; one data_in for all, a weight per layer, six formats: 7,776 plans."""
    formats = ((8, 6), (6, 4), (5, 3), (4, 3), (3, 2), (2, 1))
    x, y = load_wine(return_X_y=True)
    x_train, y_train, x_val, y_val = split(x, y, 90)
    layers = train_mlp(x_train, y_train, (13, 16, 16, 16, 3), epochs=60)
    figures = tabulate_formats(layers, x_train, x_val, y_val, formats, shared_data_in=True)
    return precision_table("wine-precision", bits(formats), figures)


def jets_precision() -> Table:
    """A trained 48-88-88-44-44-44-5 on 3,000 jets; one data_in, a weight per layer, four formats: 16,384 plans."""
    from safetensors.torch import load_file

    formats = ((12, 8), (8, 6), (5, 4), (3, 2))
    data = np.load(data_folder() / "jets.npz", allow_pickle=False)
    x, y = (data[name] for name in (("x", "y") if "x" in data else data.files[:2]))
    tensors = load_file(data_folder() / "jets-mlp.safetensors")
    layers = []
    for i in sorted(int(name.split(".")[0]) for name in tensors if name.endswith("weight")):
        layer = nn.Linear(*reversed(tensors[f"{i}.weight"].shape))
        layer.load_state_dict({"weight": tensors[f"{i}.weight"], "bias": tensors[f"{i}.bias"]})
        layers.append(layer)
    inputs = torch.tensor(x, dtype=torch.float32)
    figures = tabulate_formats(layers, inputs, inputs, torch.tensor(y), formats, shared_data_in=True)
    return precision_table("jets-precision", bits(formats), figures)


def train_widths(
    x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor, widths: Sequence[int], hidden: int, *, epochs: int, seed: int
) -> NDArray[np.float64]:
    """Validation accuracy of every MLP with these hidden widths, each from its own start, trained side by side."""
    plans = np.array(list(itertools.product(widths, repeat=hidden)))
    top, classes, count = max(widths), int(y.max()) + 1, len(plans)
    generator = torch.Generator().manual_seed(seed)
    sizes = [x.shape[1], *[top] * hidden, classes]
    masks = [(torch.arange(top)[None] < torch.tensor(plans[:, i])[:, None]).float()[:, None] for i in range(hidden)]
    params: list[Tensor] = []
    for depth, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        used = torch.tensor(plans[:, depth - 1]).float() if depth else torch.full((count,), float(fan_in))
        bound = (1 / used.sqrt())[:, None, None]
        params.append(((torch.rand(count, fan_in, fan_out, generator=generator) * 2 - 1) * bound).requires_grad_())
        params.append(((torch.rand(count, 1, fan_out, generator=generator) * 2 - 1) * bound).requires_grad_())

    def forward(value: Tensor) -> Tensor:
        value = value.expand(count, *value.shape)
        for depth in range(hidden + 1):
            value = torch.baddbmm(params[2 * depth + 1], value, params[2 * depth])
            if depth < hidden:
                value = torch.relu(value) * masks[depth]
        return value

    optimizer = torch.optim.Adam(params, 1e-2)
    for _ in range(epochs):
        for i in range(0, len(x), 100):
            logits = forward(x[i : i + 100])
            loss = cross_entropy(logits.flatten(0, 1), y[i : i + 100].repeat(count), reduction="sum") / len(
                y[i : i + 100]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return (forward(x_val).argmax(2) == y_val).double().mean(1).numpy()


def macs(sizes: Sequence[int]) -> float:
    return float(sum(a * b for a, b in itertools.pairwise(sizes)))


WIDTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)


def width_table(name: str, x: NDArray[np.float64], y: NDArray[np.int64], train: int, *, epochs: int) -> Table:
    """f-h1-h2-h3-c, trained, mean of three seeds; ten widths per hidden layer: 1,000 plans."""
    parts = split(x, y, train)
    runs = [train_widths(*parts, WIDTHS, 3, epochs=epochs, seed=seed) for seed in range(3)]
    ends = x.shape[1], int(y.max()) + 1
    cost = np.array([macs((ends[0], *plan, ends[1])) for plan in itertools.product(WIDTHS, repeat=3)])
    return Table(
        name=name,
        kinds=("width",) * 3,
        values=(tuple(map(float, WIDTHS)),) * 3,
        accuracy=np.mean(runs, axis=0),
        cost=cost,
        noise=((),) * 3,
    )


def digits_width() -> Table:
    """Widths on handwritten digits."""
    x, y = load_digits(return_X_y=True)
    return width_table("digits-width", x, y, 1000, epochs=30)


def pendigits_width() -> Table:
    """Widths on pen strokes."""
    x, y = pen_strokes()
    return width_table("pendigits-width", x[:7000], y[:7000], 3500, epochs=15)


def joint(
    name: str, x: NDArray[np.float64], y: NDArray[np.int64], train: int, widths: Sequence[int], *, epochs: int
) -> Table:
    """f-h1-h2-c, trained; a width per hidden layer, then one data_in for all and a weight per layer."""
    x_train, y_train, x_val, y_val = split(x, y, train)
    accuracies, costs = [], []
    for h1, h2 in itertools.product(widths, repeat=2):
        layers = train_mlp(x_train, y_train, (x.shape[1], h1, h2, int(y.max()) + 1), epochs=epochs)
        accuracy, cost, noise = tabulate_formats(layers, x_train, x_val, y_val, FORMATS, shared_data_in=True)
        accuracies.append(accuracy)
        costs.append(cost)
    values = (tuple(map(float, widths)),) * 2 + (bits(FORMATS),) * 4
    kinds = ("width",) * 2 + ("precision",) * 4
    return Table(
        name=name,
        kinds=kinds,
        values=values,
        accuracy=np.concatenate(accuracies),
        cost=np.concatenate(costs),
        noise=((), (), *noise),  # of the last network, which is the widest
    )


def cancer_joint() -> Table:
    """30-h1-h2-2 on breast cancers; two widths of five, five formats of data_in and each weight: 15,625 plans."""
    x, y = load_breast_cancer(return_X_y=True)
    return joint("cancer-joint", x, y, 300, (2, 4, 8, 16, 32), epochs=30)


def pen_strokes() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    data = np.load(data_folder() / "pendigits.npz", allow_pickle=False)
    return data["x_train"].astype(np.float64), data["y_train"].astype(np.int64)


def pendigits_joint() -> Table:
    """16-h1-h2-10 on pen strokes; two widths of five, five formats of data_in and each weight: 15,625 plans."""
    x, y = pen_strokes()
    return joint("pendigits-joint", x[:5000], y[:5000], 3500, (4, 8, 16, 32, 64), epochs=10)


def pendigits_precision() -> Table:
    """16-32-32-10 on pen strokes; data_in and weight of each layer, five formats: 15,625 plans."""
    x, y = pen_strokes()
    x_train, y_train, x_val, y_val = split(x[:7000], y[:7000], 4000)
    layers = train_mlp(x_train, y_train, (16, 32, 32, 10), epochs=20)
    figures = tabulate_formats(layers, x_train, x_val, y_val, FORMATS, shared_data_in=False)
    return precision_table("pendigits-precision", bits(FORMATS), figures)


def digits_joint() -> Table:
    """64-h1-h2-10 on handwritten digits; two widths of five, five formats of data_in and each weight: 15,625 plans."""
    x, y = load_digits(return_X_y=True)
    return joint("digits-joint", x, y, 1000, (4, 8, 16, 32, 64), epochs=30)


def jets_joint() -> Table:
    """48-h1-h2-5 on jets; two widths of five, five formats of data_in and each weight: 15,625 plans."""
    data = np.load(data_folder() / "jets.npz", allow_pickle=False)
    x, y = (data[name] for name in (("x", "y") if "x" in data else data.files[:2]))
    return joint("jets-joint", x.astype(np.float64), y.astype(np.int64), 1500, (4, 8, 16, 32, 64), epochs=20)


def cifar_lenet() -> Table:
    """A LeNet-5 on CIFAR-10; bits of all data and of each layer's weights, five choices: 15,625 plans."""
    choices = (8, 6, 5, 4, 3)
    return precision_table("cifar-lenet", choices, lenet_precision(data_folder(), choices))


def cifar_resnet20() -> Table:
    """A trained ResNet-20 on CIFAR-10; bits of each of its six parts, four choices: 4,096 plans."""
    choices = (8, 6, 4, 3)
    return precision_table("cifar-resnet20", choices, resnet20_precision(data_folder(), choices))


TABLES: dict[str, Callable[[], Table]] = {
    "digits-precision": digits_precision,
    "digits-width": digits_width,
    "cancer-joint": cancer_joint,
    "wine-precision": wine_precision,
    "jets-precision": jets_precision,
    "pendigits-width": pendigits_width,
    "pendigits-joint": pendigits_joint,
    "pendigits-precision": pendigits_precision,
    "digits-joint": digits_joint,
    "jets-joint": jets_joint,
    "cifar-lenet": cifar_lenet,
    "cifar-resnet20": cifar_resnet20,
}

LONG = ("cifar-lenet", "cifar-resnet20", "pendigits-width")
"""Tables that take ten minutes to half an hour to make."""


def data_folder() -> Path:
    return Path(os.environ.get("DOVETAIL_DATA", Path(__file__).parents[2] / "shared" / "data"))


def read_table(name: str, path: Path) -> Table | None:
    """A table from its file; None where that was written before tables held the noise."""
    with np.load(path, allow_pickle=False) as kept:
        if "noise0" not in kept.files:
            return None
        count = sum(key.startswith("values") for key in kept.files)
        return Table(
            name=name,
            kinds=tuple(map(str, kept["kinds"])),
            values=tuple(tuple(kept[f"values{d}"].tolist()) for d in range(count)),
            accuracy=kept["accuracy"],
            cost=kept["cost"],
            noise=tuple(tuple(kept[f"noise{d}"].tolist()) for d in range(count)),
        )


def load_table(name: str) -> Table | None:
    """The table, from the cache where it is there; None where its data is not on this machine."""
    folder = Path(os.environ.get("DOVETAIL_TABLES", Path(tempfile.gettempdir()) / "dovetail-tables"))
    path = folder / f"{name}.npz"
    if path.exists() and (table := read_table(name, path)) is not None:
        return table
    try:
        table = TABLES[name]()
    except FileNotFoundError:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    columns = {f"values{d}": np.array(v) for d, v in enumerate(table.values)}
    columns |= {f"noise{d}": np.array(v) for d, v in enumerate(table.noise)}
    np.savez(path, kinds=np.array(table.kinds), accuracy=table.accuracy, cost=table.cost, **columns)
    return table
