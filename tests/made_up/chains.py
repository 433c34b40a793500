"""Networks that are chains of layers, one for each kind of layer and way to join them."""

from torch import nn

from goldilocks_zone.models.networks import Residual
from made_up.networks import model, of_module

IMAGE = (2, 7, 6)


def strided():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(3, 4, 2, dilation=2, bias=False),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def overlapping():
    return nn.Sequential(
        nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(0, 1)),
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        nn.ReLU(),
        nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
        nn.Flatten(),
        nn.Linear(45, 4),
    )


def averages():
    return nn.Sequential(
        nn.Conv2d(2, 3, 2, bias=False),
        nn.Softplus(beta=4),
        nn.AvgPool2d(2, ceil_mode=True, divisor_override=3),
        nn.Conv2d(3, 3, 2),
        nn.Softplus(beta=0.5, threshold=3),
        nn.MaxPool2d((1, 2), stride=1, dilation=1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


def residual_first():
    inner = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 8, bias=False), nn.Tanh())
    return nn.Sequential(Residual(nn.Sequential(nn.Linear(8, 8), nn.Tanh())), Residual(inner), nn.Linear(8, 4))


def residual_convolutions():
    inner = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))
    outer = Residual(nn.Sequential(Residual(inner), nn.Conv2d(3, 3, 1), nn.Softplus()))
    return nn.Sequential(nn.Conv2d(2, 3, 3), outer, nn.Flatten(), nn.Linear(60, 4))


def shared_activation():
    between = nn.Tanh()
    return nn.Sequential(nn.Linear(8, 7), between, nn.Linear(7, 7), between, nn.Linear(7, 4))


def tanh_first():
    return nn.Sequential(nn.Tanh(), nn.Linear(8, 7), nn.Identity(), nn.Linear(7, 7), nn.Softplus(), nn.Linear(7, 4))


NETWORKS = {
    "fc-30x2-relu": lambda: model("fc-30x2-relu"),
    "fc-9x3-relu-nobias": lambda: model("fc-9x3-relu-nobias"),
    "fc-7-6-tanh-nobias": lambda: model("fc-7-6-tanh-nobias"),
    "fc-30x2-softplus": lambda: model("fc-30x2-softplus"),
    "fc-9x2-leakyrelu": lambda: model("fc-9x2-leakyrelu"),
    "fc-9x2-identity": lambda: model("fc-9x2-identity"),
    "fc-6x3-tanh-res": lambda: model("fc-6x3-tanh-res"),
    "fc-30x3-relu-nobias-res": lambda: model("fc-30x3-relu-nobias-res"),
    "conv-3x2-relu": lambda: model("conv-3x2-relu", image=(2, 5, 6), examples=12),
    "conv-3x2-tanh-nobias": lambda: model("conv-3x2-tanh-nobias", image=(1, 5, 6), examples=12),
    "one layer": lambda: of_module(nn.Linear(8, 4), (8,)),
    **{
        maker.__name__: lambda maker=maker: of_module(maker(), IMAGE, examples=12)
        for maker in (strided, overlapping, averages, residual_convolutions)
    },
    **{maker.__name__: lambda maker=maker: of_module(maker(), (8,)) for maker in (residual_first, shared_activation)},
    "tanh_first": lambda: of_module(tanh_first(), (8,)),
}
