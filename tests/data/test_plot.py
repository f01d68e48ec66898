import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from eejax.data import (
    dirichlet,
    label_distribution,
    noise_skew,
    partition_by,
    plot_feature_skew,
    plot_label_distribution,
    writer_skew,
)

COUNTS = np.array([[5, 0, 1], [2, 2, 2], [0, 0, 0]])


def test_counts_by_hand():
    labels = np.array([0, 2, 2, 1, 2])
    counts = label_distribution(
        labels, [np.array([4, 1]), np.array([], int), np.array([0, 3, 2])], 4
    )
    assert counts.tolist() == [[0, 0, 2, 0], [0, 0, 0, 0], [1, 1, 1, 0]]


def test_counts_add_up_to_the_data_set():
    labels = np.arange(300) % 10
    counts = label_distribution(labels, dirichlet(labels, 8, 0), 10)
    assert counts.sum(0).tolist() == [30] * 10


def test_bars_are_stacked_in_the_order_of_clients_and_classes():
    ax = plot_label_distribution(COUNTS, ["cat", "dog", "owl"])
    boxes = [[path.get_extents() for path in bars.get_paths()] for bars in ax.collections]
    spans = [[(box.x0, box.x1, round((box.y0 + box.y1) / 2)) for box in row] for row in boxes]
    assert spans == [[(0, 5, 0), (0, 2, 1)], [(2, 4, 1)], [(5, 6, 0), (4, 6, 1)]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cat", "dog", "owl"]
    top, bottom = ax.get_ylim()[::-1]
    assert top < 0 < 2 < bottom  # The first client is on top.
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("samples", "client")


def test_given_axes_are_drawn_on():
    _, ax = Figure().subplots(1, 2)
    assert plot_label_distribution(COUNTS, ax=ax) is ax
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1", "2"]


@pytest.mark.parametrize(("clients", "classes"), [(1, 1), (3, 10), (200, 100)])
def test_every_size_is_drawn_with_colours_of_its_own(clients, classes):
    ax = plot_label_distribution(np.ones((clients, classes), int))
    ax.figure.savefig(io.BytesIO(), format="png", dpi=20)
    colours = {tuple(bars.get_facecolor()[0]) for bars in ax.collections}
    assert len(colours) == classes


def test_nothing_to_draw():
    plot_label_distribution(np.zeros((2, 3), int)).figure.savefig(io.BytesIO(), format="svg")


def test_names_must_fit():
    with pytest.raises(ValueError, match="class_names must be 3 names; got 2"):
        plot_label_distribution(COUNTS, ["cat", "dog"])
    with pytest.raises(ValueError, match="client_names must be 3 names; got 1"):
        plot_label_distribution(COUNTS, client_names=["phone"])


@pytest.mark.parametrize(
    "name",
    ["iid", "dirichlet:0.3", "inner_dirichlet:0.3", "shards:2", "classes:2", "quantity:0.5",
     "power_law:1", "natural"],
)  # fmt: skip
def test_every_partition_has_a_picture(name):
    labels = np.arange(300) % 10
    counts = label_distribution(labels, partition_by(name, labels, 6, 0, labels), 10)
    names = [f"subject {i}" for i in range(6)]
    ax = plot_label_distribution(counts, client_names=names)
    ax.figure.savefig(io.BytesIO(), format="png", dpi=20)
    assert [text.get_text() for text in ax.get_yticklabels()] == names
    assert ax.get_yticks().tolist() == list(range(6))
    widths = [path.get_extents().width for bars in ax.collections for path in bars.get_paths()]
    assert sum(widths) == 300


def test_many_client_names_are_thinned_out():
    names = [str(i) for i in range(100)]
    ax = plot_label_distribution(np.ones((100, 2), int), client_names=names)
    assert [text.get_text() for text in ax.get_yticklabels()] == names[::3]


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_skew_is_drawn_as_the_clients_see_it(channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, channels)).astype(np.uint8)
    skew = noise_skew(21, 0, sd=40)
    ax = plot_feature_skew(images, skew, max_clients=3)
    ax.figure.savefig(io.BytesIO(), format="png", dpi=20)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == ["0: sd 0", "10: sd 20", "20: sd 40"]
    sheet = np.asarray(ax.images[0].get_array()).reshape(18, 20, channels)
    for row, client in enumerate((0, 10, 20)):
        cells = np.split(sheet[6 * row : 6 * row + 6], 4, 1)
        np.testing.assert_array_equal(np.stack(cells), skew.apply(images, client))


def test_feature_skew_on_given_axes():
    ax = Figure().subplots()
    images = np.zeros((1, 8, 8, 1), np.uint8)
    assert plot_feature_skew(images, writer_skew(1, 0), ax=ax) is ax
    assert ax.get_yticklabels()[0].get_text().startswith("0: slant ")
