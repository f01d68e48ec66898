"""The catalogue against the builders of TFDS."""

import pytest
import tensorflow_datasets as tfds

from eejax.data.catalogue import KNOWN

# TFDS declares ten labels more than the letters have, and reads the file of an older release.
CLASSES = {"emnist/letters": 37}


@pytest.mark.parametrize("name", KNOWN)
def test_names_shapes_and_classes_are_those_of_tfds(name, tmp_path, no_network):
    builder = tfds.builder(name, data_dir=str(tmp_path), file_format="array_record")
    info, samples, _ = KNOWN[name]
    label = builder.info.features["label"]
    assert builder.info.features["image"].shape == info.image_shape
    assert label.num_classes == CLASSES.get(name, len(info.classes))
    if name in ("fashion_mnist", "kmnist"):
        assert tuple(label.names) == info.classes
    if name.startswith("emnist"):
        assert (
            builder.builder_config.train_examples + builder.builder_config.test_examples == samples
        )
    assert len(set(info.classes)) == len(info.classes)
