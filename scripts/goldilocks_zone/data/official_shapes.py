"""Shapes, checksums and licences of the official datasets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Channels, height and width of a dataset's images, and its numbers of classes and training examples."""

    image: tuple[int, int, int]
    classes: int
    training_examples: int


OFFICIAL = {
    "mnist": Shape((1, 28, 28), 10, 60_000),
    "fashion_mnist": Shape((1, 28, 28), 10, 60_000),
    "cifar10": Shape((3, 32, 32), 10, 50_000),
    "annuli": Shape((1, 1, 2), 3, 6_000),
}
# `datasets.checksum` of images, labels and split; other datasets are verified by the checksums of their source files.
CHECKSUMS = {
    "mnist": "e10378d1a17062469c9b5ca3cad0b5d3f975efaa45465e33edba640c0fcd5e60",
    "fashion_mnist": "a6273e280201b88bb63ed1b0c3b68cf57f0971e2932af67b8ce9191dc9921c90",
}
LICENCES = {
    "mnist": "MNIST, Y. LeCun, C. Cortes, C. Burges; CC BY-SA 3.0",
    "fashion_mnist": "Fashion-MNIST, Zalando SE; MIT licence",
    "cifar10": "CIFAR-10, A. Krizhevsky, V. Nair, G. Hinton; no licence stated, free for research with citation",
    "annuli": "Three annuli, made by this project; CC0 1.0",
}
