"""Networks for benchmarks that are not sequential or represent current practice; used in evaluation mode."""

from torch import nn


def resnet18() -> nn.Module:
    """torchvision's ResNet-18 for 10 classes."""
    import torchvision  # Its import takes two seconds that other cases do not need.

    return torchvision.models.resnet18(num_classes=10)


def vision_transformer() -> nn.Module:
    """torchvision's vision transformer on images of 32 × 32: patches of 4 × 4, six blocks, a million parameters."""
    import torchvision

    sizes = {"num_layers": 6, "num_heads": 4, "hidden_dim": 128, "mlp_dim": 384, "num_classes": 10}
    return torchvision.models.VisionTransformer(image_size=32, patch_size=4, **sizes)


def normalised() -> nn.Module:
    """Fully connected network with two hidden layers of 200 units, layer normalisation and GELU."""
    hidden = [each for i in (784, 200) for each in (nn.Linear(i, 200), nn.LayerNorm(200), nn.GELU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(200, 10))


def sequence_of_layers() -> nn.Sequential:
    """The layers of the example SmallCNN in README.md as a sequence, for images of 1 × 28 × 28."""
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 28 * 28, 10)]
    return nn.Sequential(*layers)


class SmallCNN(nn.Module):
    """The layers of `sequence_of_layers` in a module with its own forward pass, as users write modules."""

    def __init__(self):
        super().__init__()
        self.convolution, _, _, self.readout = sequence_of_layers()

    def forward(self, images):
        """Logits (n, 10) of images (n, 1, 28, 28)."""
        return self.readout(self.convolution(images).relu().flatten(1))


IMAGES, DIGITS = (3, 32, 32), (1, 28, 28)
# Function that builds the network, and the shape of an example, by name.
NETWORKS = {
    "resnet18": (resnet18, IMAGES),
    "vision transformer": (vision_transformer, IMAGES),
    "normalised": (normalised, DIGITS),
    "SmallCNN": (SmallCNN, DIGITS),
    "SmallCNN as a sequence": (sequence_of_layers, DIGITS),
}
