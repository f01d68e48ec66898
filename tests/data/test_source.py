import numpy as np

from eejax.data import DataSource, Info, subset

INFO = Info("toy", ("a", "b"), (1, 2, 1), "made up", "none", "none")


def test_subset_picks_in_the_given_order_and_keeps_the_info():
    source = DataSource(INFO, np.arange(8, dtype=np.uint8).reshape(4, 1, 2, 1), np.arange(4))
    picked = subset(source, np.array([3, 0, 3]))
    assert picked.info is INFO
    assert picked.images.ravel().tolist() == [6, 7, 0, 1, 6, 7]
    assert picked.labels.tolist() == [3, 0, 3]
    assert subset(source, source.labels > 1).labels.tolist() == [2, 3]
    assert picked.groups is None


def test_subset_picks_the_groups_too():
    images, labels = np.zeros((4, 1, 2, 1), np.uint8), np.zeros(4, np.int32)
    source = DataSource(INFO._replace(groups=("p", "q")), images, labels, np.array([0, 1, 1, 0]))
    assert subset(source, [1, 3, 2]).groups.tolist() == [1, 0, 1]
