"""A small residual network with batch normalisation in the file of a user, and its training on made-up images."""

import numpy as np
import torch
from torch import nn

from goldilocks_zone.models import user_code

SOURCE = '''"""A residual network as users have it: batch normalisation, a shortcut with a convolution, a PReLU."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity()
        if stride > 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, image, classes, width=4):
        super().__init__()
        stem = nn.Conv2d(image[0], width, 3, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(width), nn.PReLU())
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2))
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))
'''


def written(path) -> user_code.UserNetwork:
    """Write the Python file of the residual network to `path`, and return the description of the network."""
    path.write_text(SOURCE)
    return user_code.describe(str(path), "ResNet", {})


def trained(network: user_code.UserNetwork, images: np.ndarray, labels: np.ndarray, epochs: int, each) -> nn.Module:
    """Train the network on images (n, channels, height, width) in single precision, and return it in evaluation mode.

    `each` is called with the number of each epoch and the network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = user_code.load(network)(images.shape[1:], int(labels.max()) + 1).train()
        inputs, targets = torch.as_tensor(images).float(), torch.as_tensor(labels).long()
        optimiser = torch.optim.Adam(module.parameters(), 3e-3)
        for epoch in range(1, epochs + 1):
            for batch in torch.randperm(len(inputs)).split(20):
                optimiser.zero_grad()
                nn.functional.cross_entropy(module(inputs[batch]), targets[batch]).backward()
                optimiser.step()
            each(epoch, module)
    return module.eval()
