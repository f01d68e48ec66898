import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from eejax.data import dirichlet, label_distribution, plot_label_distribution

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
