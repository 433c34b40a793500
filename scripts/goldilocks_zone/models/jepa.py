"""Joint embeddings: networks with one encoder for both observations of a pair (x, y), and a head that gives residuals.

The head contains a predictor of the embedding of y, a decoder, or both; Siamese networks have no head. A predictor may
take an action and a latent variable.

Inputs are packed: each row (2p + a) holds the observations x and y and the features of the action. Outputs (n, 2e +
k·r) hold the embeddings s_x and s_y and k residuals, in the layout that `embedding_losses` defines. Letters: m members
of an ensemble, n examples, k codes, and the dimensions p of an observation, a of an action, e of an embedding, r of a
residual and q of a linear latent variable.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from goldilocks_zone.models import initialisation, labels, networks
from goldilocks_zone.randomness import stream

HIDDEN = 64  # hidden units of a predictor
AT_ONCE = 2**22  # entries of inputs in one forward pass of an evaluation


class Sizes(NamedTuple):
    """Dimensions of an observation, of an action's features, and of an embedding."""

    observation: int
    action: int
    embedding: int


class Latent(NamedTuple):
    """Latent variable of a prediction: one of k = `codes` codes, or a linear latent z with q = `columns` entries.

    With a linear latent, the prediction is ŝ + Bz, with ŝ = Pred(s_x, a) and a basis B (e, q), which is learnt if
    `free` is true. The energy is |ŝ + Bz − s_y|² + β|z|², with β = `penalty`.
    """

    codes: int = 1
    columns: int = 0
    free: bool = False
    penalty: float = 0.0


def through(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Apply a fully connected network, `layers`, to vectors `x` (…, n, i); returns its outputs (…, n, o).

    Weights and biases may have the same leading axes as `x`, such as one for the members of an ensemble. Modules
    nn.Flatten are skipped.
    """
    for layer in layers:
        if isinstance(layer, nn.Linear):
            x = _affine(x, layer.weight, layer.bias)
        elif isinstance(layer, networks.Residual):
            x = x + through(layer.inner, x)
        elif not isinstance(layer, nn.Flatten):
            x = layer(x)
    return x


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if weight.ndim == 3 and bias is not None:
        return torch.baddbmm(bias[:, None], x, weight.mT)
    product = x @ weight.mT
    return product if bias is None else product + bias


class Predictor(nn.Module):
    """Predictor of the next embedding, s + MLP(s, action, code), from an embedding s.

    The MLP has e + a + k inputs, one hidden layer of 64 ReLU units, and e outputs. The code is one-hot. If k = 1, the
    MLP takes no code and has e + a inputs.
    """

    def __init__(self, sizes: Sizes, codes: int = 1):
        super().__init__()
        self._told, self.codes = sizes.embedding + sizes.action, codes
        self.first = nn.Linear(self._told + (codes if codes > 1 else 0), HIDDEN)
        self.last = nn.Linear(HIDDEN, sizes.embedding)

    def forward(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predictions (…, n, k, e) of the next embeddings, one for each code.

        `embeddings` are (…, n, e), and `actions` (…, n, a) hold the features of actions.
        """
        told, weight = torch.cat([embeddings, actions], -1), self.first.weight
        hidden = _affine(told, weight[..., : self._told], self.first.bias)
        if self.codes > 1:
            # A one-hot code selects a column of the first layer.
            hidden = hidden[..., :, None, :] + weight[..., self._told :].mT[..., None, :, :]
        flat = torch.relu(hidden.flatten(-3, -2) if self.codes > 1 else hidden)
        moved = _affine(flat, self.last.weight, self.last.bias)
        return embeddings[..., None, :] + moved.unflatten(-2, (-1, self.codes))


class Prediction(nn.Module):
    """Head that gives the prediction error Pred(s_x, a) − s_y for each code."""

    def __init__(self, sizes: Sizes, latent: Latent):
        super().__init__()
        self.predictor = Predictor(sizes, latent.codes)

    def forward(self, s_x: Tensor, s_y: Tensor, x: Tensor, y: Tensor, actions: Tensor) -> Tensor:
        """Residuals (…, n, k, e) for embeddings (…, n, e) and actions (…, n, a); `x` and `y` are not used."""
        return self.predictor(s_x, actions) - s_y[..., None, :]


class LinearPrediction(nn.Module):
    """Head that predicts the embedding s_y by ŝ + Bz, with ŝ = Pred(s_x, a) and a linear latent z.

    The residual is (ŝ + Bz − s_y, √β z); if the penalty β of the latent is zero, the second part is omitted. The energy
    is the squared norm of the residual. z minimises it: z = (BᵀB + β)⁻¹ Bᵀ(s_y − ŝ). B starts as `basis` (e, q), whose
    columns must be orthonormal. It is learnt if the latent is `free`, else fixed.
    """

    def __init__(self, sizes: Sizes, latent: Latent, basis: Tensor):
        super().__init__()
        self.predictor, self._latent = Predictor(sizes), latent
        if latent.free:
            self.basis = nn.Parameter(basis)
        else:
            self.register_buffer("basis", basis)

    def forward(self, s_x: Tensor, s_y: Tensor, x: Tensor, y: Tensor, actions: Tensor) -> Tensor:
        """Residuals (…, n, 1, r) for embeddings (…, n, e) and actions (…, n, a); `x` and `y` are not used.

        r is e + q if the penalty β is positive, and e if it is zero.
        """
        beta, basis = self._latent.penalty, self.basis
        missing = s_y - self.predictor(s_x, actions)[..., 0, :]
        if self._latent.free:
            gram = basis.mT @ basis + beta * torch.eye(basis.shape[-1], dtype=basis.dtype, device=basis.device)
            z = torch.linalg.solve(gram, basis.mT @ missing.mT).mT
        else:
            z = missing @ basis / (1 + beta)
        residual = z @ basis.mT - missing
        if beta:
            residual = torch.cat([residual, math.sqrt(beta) * z], -1)
        return residual[..., None, :]


class PixelPrediction(nn.Module):
    """Head that gives the error Dec(Pred(s_x, a)) − y of decoded predictions, in data space, for each code."""

    def __init__(self, sizes: Sizes, latent: Latent, decoder: nn.Sequential):
        super().__init__()
        self.predictor, self.decoder = Predictor(sizes, latent.codes), decoder

    def forward(self, s_x: Tensor, s_y: Tensor, x: Tensor, y: Tensor, actions: Tensor) -> Tensor:
        """Residuals (…, n, k, p) for `s_x` (…, n, e), `y` (…, n, p) and `actions` (…, n, a); ignores the others."""
        predicted = self.predictor(s_x, actions)
        pixels = through(self.decoder, predicted.flatten(-3, -2)).unflatten(-2, predicted.shape[-3:-1])
        return pixels - y[..., None, :]


class PixelAutoencoder(nn.Module):
    """Head that gives the reconstruction error Dec(s_x) − x, in data space."""

    def __init__(self, decoder: nn.Sequential):
        super().__init__()
        self.decoder = decoder

    def forward(self, s_x: Tensor, s_y: Tensor, x: Tensor, y: Tensor, actions: Tensor) -> Tensor:
        """Residuals (…, n, 1, p) for `s_x` (…, n, e) and `x` (…, n, p); the other arguments are not used."""
        return (through(self.decoder, s_x) - x)[..., None, :]


class JointEmbedding(nn.Module):
    """Joint embedding: an encoder that x and y share, and a head that gives residuals.

    Without a head, the network is Siamese. `observation` is the dimension p of x and of y. `takes_members` is True
    because ensembles of this module need no vmap: if each of its parameters is replaced by a stack (m, …) of those of m
    members, it takes inputs (m, n, …).
    """

    takes_members = True

    def __init__(self, encoder: nn.Sequential, observation: int, head: nn.Module | None = None):
        super().__init__()
        self.encoder, self.observation = encoder, observation
        self.head: Any = head

    def forward(self, packed: Tensor) -> Tensor:
        """Outputs (…, n, 2e + k·r) for `packed` inputs (…, n, 2p + a): s_x, s_y and, with a head, k residuals."""
        # x and y of an example lie side by side, so without actions the rows x, y, x, y, … are a view of the inputs.
        both = packed[..., : 2 * self.observation].unflatten(-1, (2, -1)).flatten(-3, -2)
        embeddings = through(self.encoder, both).unflatten(-2, (-1, 2))
        outputs = embeddings.flatten(-2)
        if self.head is None:
            return outputs
        residuals = self.head(*embeddings.unbind(-2), *self.unpacked(packed))
        return torch.cat([outputs, residuals.flatten(-2)], -1)

    def unpacked(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split `packed` inputs (…, 2p + a) into x (…, p), y (…, p) and the features of actions (…, a)."""
        p = self.observation
        return packed[..., :p], packed[..., p : 2 * p], packed[..., 2 * p :]


def build(
    encoder: labels.Network, sizes: Sizes, head: str = "predictor", latent: Latent | None = None
) -> JointEmbedding:
    """Build a joint embedding in double precision; `initial` draws its initial parameters.

    `encoder` describes the encoder. `head` is `siamese` (no head), `predictor`, `pixel_prediction` or
    `pixel_autoencoder`. The last two have a decoder, whose hidden widths are those of the encoder in reverse order.
    Only `predictor` uses a linear latent. Raises ValueError for an unknown head.
    """
    latent = latent or Latent()
    module = networks.build(encoder, (1, 1, sizes.observation), sizes.embedding)
    if head == "siamese":
        made = None
    elif head == "predictor":
        linear = latent.columns or latent.penalty
        made = LinearPrediction(sizes, latent, _basis(sizes, latent)) if linear else Prediction(sizes, latent)
    elif head == "pixel_prediction":
        made = PixelPrediction(sizes, latent, _decoder(encoder, sizes))
    elif head == "pixel_autoencoder":
        made = PixelAutoencoder(_decoder(encoder, sizes))
    else:
        raise ValueError(f"head {head!r} is unknown: use siamese, predictor, pixel_prediction or pixel_autoencoder")
    return JointEmbedding(module, sizes.observation, made).double()


def _decoder(encoder: labels.Network, sizes: Sizes) -> nn.Sequential:
    assert isinstance(encoder, labels.FullyConnected)  # as the configuration requires of an encoder
    reverse = dataclasses.replace(encoder, widths=encoder.widths[::-1])
    # The first module flattens all but one axis, which would merge the codes.
    return networks.build(reverse, (1, 1, sizes.embedding), sizes.observation)[1:]


def _basis(sizes: Sizes, latent: Latent) -> Tensor:
    """Draw the basis B (e, q) of a linear latent: orthonormal columns in random directions.

    Coordinate axes would be a special choice, because the variance term of VICReg treats them differently from other
    directions.
    """
    square = stream("latent basis", sizes.embedding).standard_normal((sizes.embedding, sizes.embedding))
    return torch.as_tensor(np.linalg.qr(square)[0][:, : latent.columns].copy())


def initial(module: nn.Module, kind: str, random: np.random.Generator) -> np.ndarray:
    """Draw initial parameters (D,) of a joint embedding by `initialisation.initialise`, of the given `kind`.

    A learnt basis of a linear latent is not drawn: it keeps its values in the module.
    """
    parameters = initialisation.parameters_of(module)
    pieces = np.split(
        initialisation.initialise(parameters, kind, random), np.cumsum([each.size for each in parameters])[:-1]
    )
    for i, (name, parameter) in enumerate(module.named_parameters()):
        if name.endswith("basis"):
            pieces[i] = parameter.detach().double().flatten().cpu().numpy()
    return np.concatenate(pieces)


@dataclass(frozen=True)
class Members:
    """Ensemble of m joint embeddings of one architecture, with `parameters` (m, D), one row for each member.

    Methods evaluate it in chunks of examples, without gradients.
    """

    module: JointEmbedding
    parameters: Tensor

    def encode(self, observations: Tensor) -> Tensor:
        """Embeddings (m, n, e) of observations (m, n, p)."""
        return self._called("encoder", observations)

    def predict(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predictions (m, n, k, e), one for each code, from embeddings (m, n, e) and actions (m, n, a).

        If the module has no predictor, the result is the embeddings themselves, (m, n, 1, e).
        """
        if getattr(self.module.head, "predictor", None) is None:
            return embeddings[..., None, :]
        return self._called("head.predictor", embeddings, actions)

    def residuals(self, s_x: Tensor, s_y: Tensor, packed: Tensor) -> Tensor:
        """Residuals (m, n, k, r) for embeddings `s_x` and `s_y` (m, n, e) of `packed` inputs (m, n, 2p + a)."""
        if self.module.head is None:
            return (s_x - s_y)[..., None, :]
        return self._called("head", s_x, s_y, *self.module.unpacked(packed))

    def energies(self, s_x: Tensor, s_y: Tensor, packed: Tensor) -> Tensor:
        """Energies (m, n): the minimum over codes of |ρ|², for the residuals ρ that `residuals` returns."""
        return self.residuals(s_x, s_y, packed).square().sum(-1).amin(-1)

    def codes(self, s_x: Tensor, s_y: Tensor, packed: Tensor) -> Tensor:
        """Index of the code with the smallest |ρ|², shape (m, n), for the residuals ρ that `residuals` returns."""
        return self.residuals(s_x, s_y, packed).square().sum(-1).argmin(-1)

    def _called(self, path: str, *inputs: Tensor) -> Tensor:
        part, named = self.module.get_submodule(path), list(self.module.named_parameters())
        pieces = self.parameters.split([each.numel() for _, each in named], 1)
        own = {
            name.removeprefix(f"{path}."): piece.unflatten(1, each.shape)
            for (name, each), piece in zip(named, pieces)
            if name.startswith(f"{path}.")
        }
        call: Callable = vmap(lambda arrays, *some: functional_call(part, arrays, some))
        count = max(1, AT_ONCE // (len(self.parameters) * sum(each.shape[-1] for each in inputs)))
        with torch.no_grad():
            return torch.cat(
                [
                    call(own, *(each.to(self.parameters) for each in some))
                    for some in zip(*(each.split(count, 1) for each in inputs))
                ],
                1,
            )
