"""Which client has how many samples of which class, and how it sees them: counted, and drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eejax.data.feature_skew import FeatureSkew

# Paul Tol's "muted" scheme, told apart with every kind of colour vision.
_MUTED = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255",
          "#AA4499", "#BBBBBB")  # fmt: skip
_INK = "#444444"


def label_distribution(
    labels: np.ndarray, indices: Sequence[np.ndarray], classes: int
) -> np.ndarray:
    """Counts the samples of each class at each client.

    Args:
      labels: int ``[n]``, in 0..classes-1.
      indices: positions of the samples of each client.
      classes: number of classes.

    Returns:
      int64 ``[clients, classes]``.

    Example:
      >>> label_distribution(np.array([0, 2, 2, 1]), [np.array([1, 2]), np.array([0, 3])], 3)
      array([[0, 0, 2],
             [1, 1, 0]])
    """
    labels = np.asarray(labels)
    return np.array([np.bincount(labels[row], minlength=classes) for row in indices])


def plot_label_distribution(
    counts: np.ndarray,
    class_names: Sequence[str] | None = None,
    ax: Any = None,
    client_names: Sequence[str] | None = None,
) -> Any:
    """Draws one horizontal bar a client, stacked by class.

    Args:
      counts: ``[clients, classes]``, from `label_distribution`.
      class_names: for the legend; 0, 1, ... if None.
      ax: matplotlib axes to draw on; those of a new figure if None.
      client_names: for the axis, such as ``source.info.groups`` of natural groups; 0, 1, ... if
        None.

    Returns:
      The axes.

    Raises:
      ValueError: there is not one name a class, or a client.

    Example:
      >>> ax = plot_label_distribution(np.array([[5, 0, 1], [2, 2, 2]]), ["cat", "dog", "owl"])
      >>> [text.get_text() for text in ax.get_legend().get_texts()]
      ['cat', 'dog', 'owl']
    """
    import matplotlib
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    counts = np.asarray(counts)
    clients, classes = counts.shape
    class_names = [str(i) for i in range(classes)] if class_names is None else list(class_names)
    if len(class_names) != classes:
        raise ValueError(f"class_names must be {classes} names; got {len(class_names)}")
    if client_names is not None and len(client_names) != clients:
        raise ValueError(f"client_names must be {clients} names; got {len(client_names)}")
    if ax is None:
        height = 1.2 + min(max(0.22 * clients, 1.2), 6)
        ax = Figure(figsize=(7, height), layout="constrained").subplots()
    colours = (
        list(_MUTED[:classes])
        if classes <= len(_MUTED)
        else matplotlib.colormaps["viridis"](np.linspace(0, 1, classes))
    )
    # Thin bars touch, or the gaps would flicker.
    height = 0.82 if clients <= 40 else 1
    top, bottom = np.arange(clients) - height / 2, np.arange(clients) + height / 2
    right = counts.cumsum(1)
    left = right - counts
    for i, (name, colour) in enumerate(zip(class_names, colours)):
        x0, x1 = left[:, i], right[:, i]
        corners = [(x0, top), (x1, top), (x1, bottom), (x0, bottom)]
        # One collection a class: `barh` takes a minute for 500 clients and 100 classes.
        bars = np.moveaxis(np.array(corners), -1, 0)[counts[:, i] > 0]
        ax.add_collection(PolyCollection(bars, color=colour, linewidth=0, label=name))
    ax.set(xlabel="samples", ylabel="client", xlim=(0, max(counts.sum(1).max(initial=0), 1)))
    ax.set_ylim(clients - 0.5, -0.5)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    if client_names is not None:
        step = -(-clients // 40)
        ax.set_yticks(range(0, clients, step), client_names[::step])
    ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color("#BBBBBB")
    ax.tick_params(length=0, colors=_INK)
    ax.xaxis.label.set_color(_INK)
    ax.yaxis.label.set_color(_INK)
    ax.grid(axis="x", color="#EEEEEE")
    ax.set_axisbelow(True)
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        ncols=-(-classes // 20),
        frameon=False,
        handlelength=1,
        handleheight=1,
        borderaxespad=0.4,
        fontsize="small",
        labelcolor=_INK,
    )
    return ax


def plot_feature_skew(
    images: np.ndarray, skew: FeatureSkew, max_clients: int = 10, ax: Any = None
) -> Any:
    """Draws the same images as each client sees them, one row a client.

    Args:
      images: uint8 ``[n, height, width, channels]`` of 1 or 3 channels, a few.
      skew: the feature skew.
      max_clients: more clients than that are thinned out evenly, with the first and the last.
      ax: matplotlib axes to draw on; those of a new figure if None.

    Returns:
      The axes.

    Example:
      >>> from eejax.data.feature_skew import noise_skew
      >>> ax = plot_feature_skew(np.zeros((2, 8, 8, 1), np.uint8), noise_skew(3, seed=0, sd=20))
      >>> [text.get_text() for text in ax.get_yticklabels()]
      ['0: sd 0', '1: sd 10', '2: sd 20']
    """
    from matplotlib.figure import Figure

    n, height, _, channels = images.shape
    clients = len(next(iter(skew.parameters.values())))
    shown = np.unique(np.rint(np.linspace(0, clients - 1, min(clients, max_clients))).astype(int))
    if ax is None:
        size = max(0.7 * n, 2) + 3, 0.7 * len(shown) + 0.6
        ax = Figure(figsize=size, layout="constrained").subplots()
    rows = [np.concatenate(list(skew.apply(images, client)), 1) for client in shown]
    sheet = np.concatenate(rows, 0)
    ax.imshow(sheet[..., 0] if channels == 1 else sheet, cmap="gray", vmin=0, vmax=255)
    for edge in range(height, len(sheet), height):
        ax.axhline(edge - 0.5, color="white", linewidth=1)
    texts = [
        ", ".join(f"{name} {values[client]:.3g}" for name, values in skew.parameters.items())
        for client in shown
    ]
    middles = np.arange(len(shown)) * height + (height - 1) / 2
    ax.set_yticks(middles, [f"{client}: {text}" for client, text in zip(shown, texts)])
    ax.set(xticks=[], ylabel="client")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, colors=_INK)
    ax.yaxis.label.set_color(_INK)
    return ax
