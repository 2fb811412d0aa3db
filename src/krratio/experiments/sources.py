"""The image data sets by name: shapes, classes, official files and their checksums.

Every checksum below was either computed from the file itself or is the one its publisher states:
the Fashion-MNIST digests belong to files whose MD5 sums are those in the publisher's README; the
CIFAR-10 and SVHN archives are known by their published MD5 sums and the SHA-256 sums in wide use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from krratio.paths import DATA

__all__ = [
    "CONTENTS",
    "EMBEDDED",
    "EMBEDDED_SHA256",
    "SOURCES",
    "Contents",
    "Format",
    "OfficialFile",
    "Source",
    "Split",
]

Split = Literal["train", "test"]
Format = Literal["idx", "cifar binary", "cifar tar", "svhn", "parquet"]

EMBEDDED: Final = DATA / "fashion-mnist-subset.npz"
EMBEDDED_SHA256: Final = "6d91e7d9f443c0441144fd97de2e90eaffb7264cb107bea978fcf27b2328cc5d"


@dataclass(frozen=True)
class Contents:
    """Length and SHA-256 of what a file holds once decompressed."""

    size: int
    sha256: str


@dataclass(frozen=True)
class OfficialFile:
    """One file as its publisher serves it: what is downloaded, and checked by SHA-256."""

    name: str
    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """What is known about a data set before any file is read.

    Attributes
    ----------
    name : str
        The name for ``load``.
    title : str
        How results on it are called.
    shape : tuple of int
        One image, ``(C, H, W)``.
    classes : tuple of str
        Class names; label ``i`` means ``classes[i]``.
    counts : mapping
        Split to the number of images of each class in the official set.
    files : mapping
        Split to the official files that hold it.
    format : str
        The format of the official files.
    home : str
        Where the data set is described.
    spellings : str
        Regular expression for folder names that claim this data set.
    system : tuple of Path
        Folders in which a system package puts it.
    """

    name: str
    title: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    counts: Mapping[Split, tuple[int, ...]]
    files: Mapping[Split, tuple[OfficialFile, ...]]
    format: Format
    home: str
    spellings: str
    system: tuple[Path, ...] = field(default=())

    def total(self, split: Split) -> int:
        """Return the official number of images in a split."""
        return sum(self.counts[split])


_FASHION_URL: Final = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
_SVHN_URL: Final = "https://ufldl.stanford.edu/housenumbers/"


def _fashion(name: str, size: int, sha256: str) -> OfficialFile:
    return OfficialFile(f"{name}.gz", f"{_FASHION_URL}{name}.gz", size, sha256)


def _svhn(name: str, size: int, sha256: str) -> OfficialFile:
    return OfficialFile(name, _SVHN_URL + name, size, sha256)


_FASHION_MNIST: Final = Source(
    name="fashion-mnist",
    title="Fashion-MNIST",
    shape=(1, 28, 28),
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    counts=MappingProxyType({"train": (6000,) * 10, "test": (1000,) * 10}),
    files=MappingProxyType(
        {
            "train": (
                _fashion(
                    "train-images-idx3-ubyte",
                    26_421_880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                _fashion(
                    "train-labels-idx1-ubyte",
                    29_515,
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
            ),
            "test": (
                _fashion(
                    "t10k-images-idx3-ubyte",
                    4_422_102,
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                _fashion(
                    "t10k-labels-idx1-ubyte",
                    5_148,
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            ),
        }
    ),
    format="idx",
    home="https://github.com/zalandoresearch/fashion-mnist",
    spellings=r"fashion[-_ ]?mnist",
    system=(Path("/usr/share/datasets/fashion-mnist"),),  # Debian: dataset-fashion-mnist
)

_CIFAR_ARCHIVE: Final = OfficialFile(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)

_CIFAR10: Final = Source(
    name="cifar10",
    title="CIFAR-10",
    shape=(3, 32, 32),
    classes=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    counts=MappingProxyType({"train": (5000,) * 10, "test": (1000,) * 10}),
    files=MappingProxyType({"train": (_CIFAR_ARCHIVE,), "test": (_CIFAR_ARCHIVE,)}),
    format="cifar tar",
    home="https://www.cs.toronto.edu/~kriz/cifar.html",
    spellings=r"cifar[-_ ]?10(?!\d)",
)

_SVHN: Final = Source(
    name="svhn",
    title="SVHN",
    shape=(3, 32, 32),
    classes=tuple("0123456789"),
    counts=MappingProxyType(
        {
            "train": (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
            "test": (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
        }
    ),
    files=MappingProxyType(
        {
            "train": (
                _svhn(
                    "train_32x32.mat",
                    182_040_794,
                    "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
                ),
            ),
            "test": (
                _svhn(
                    "test_32x32.mat",
                    64_275_384,
                    "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
                ),
            ),
        }
    ),
    format="svhn",
    home="https://ufldl.stanford.edu/housenumbers/",
    spellings=r"svhn",
)

SOURCES: Final[Mapping[str, Source]] = MappingProxyType(
    {source.name: source for source in (_FASHION_MNIST, _CIFAR10, _SVHN)}
)
"""The data sets that are read from files which the user has or which are downloaded."""

CONTENTS: Final[Mapping[str, Contents]] = MappingProxyType(
    {
        "train-images-idx3-ubyte": Contents(
            47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": Contents(
            60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": Contents(
            7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": Contents(
            10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    }
)
"""Fashion-MNIST once decompressed. MNIST's digits come under the very same file names and sizes, so
only the contents tell them apart; and packages compress the same contents differently."""
