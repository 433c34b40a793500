"""Second-order jets of the outputs of a network on a plane, which give the Hessian of any loss of these outputs.

Let Z be the outputs, and J = ∂Z/∂t and K = ∂²Z/∂t² their derivatives along d orthonormal directions with coordinates t.
The Hessian of the loss ℓ is H = Jᵀℓ″J + ℓ′·K; the first term is G, the second H′. The loss may couple examples. For L
dense ReLU layers without biases, Z, J and K at the parameters αθ are proportional to α^L, α^{L−1} and α^{L−2}, so that
one pass gives all radii and losses. As elsewhere, this is the Hessian that exists almost everywhere, without the
contribution of kinks.

Letters: n examples, b branches, e outputs of a branch, w = b·e outputs, d directions, p points, D parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from goldilocks_zone.models.losses import Loss, likeliest

ENTRIES_PER_CHUNK = 4e6  # of the products for one chunk of examples


@dataclass(frozen=True)
class Jets:
    """Outputs Z (n, w), tangents J (d, n, w), and functions that contract the second derivatives K.

    second: function of p cotangents (p, n, w) that returns Σ cotangent·K (p, d, d), summed over all outputs.
    trace_of_second: function that returns the trace of K over directions, Σ_a ∂²Z/∂t_a², shape (n, w). degree: degree
    of homogeneity, with Z ∝ α^degree at the parameters αθ; None if Z is not homogeneous.
    """

    outputs: Tensor
    tangents: Tensor
    trace_of_second: Callable[[], Tensor]
    second: Callable[[Tensor], Tensor]
    degree: int | None = None


@dataclass(frozen=True)
class Parts:
    """Mean losses (p,), their radial derivatives (p,), and the parts G and H′ (p, d, d) of their Hessians, at p points.

    The radial derivative is r∂_r along the ray through a point, with r the norm of the parameters. It is NaN unless the
    outputs are homogeneous.
    """

    loss: Tensor
    radial_derivative: Tensor
    gauss_newton: Tensor
    residual: Tensor

    @property
    def hessian(self) -> Tensor:
        """G + H′ (p, d, d)."""
        return self.gauss_newton + self.residual


def of_encoder(weights: Sequence[Tensor], inputs: Tensor, directions: Tensor) -> Jets:
    """Jets of an encoder that is applied to each branch of the inputs (n, b, i).

    The encoder has dense layers without biases, with ReLU between them. `weights` has one matrix (o, i) for each layer.
    `directions` are orthonormal rows (d, D), with entries in the order of the weights. The outputs (n, b·e) hold one
    branch after the other. All arguments must have the same precision.
    """
    pushed = _Pushed(weights, inputs.flatten(0, 1), directions)
    shape = len(inputs), -1

    def second(cotangents: Tensor) -> Tensor:
        return pushed.second(cotangents.reshape(len(cotangents), len(inputs) * inputs.shape[1], -1))

    tangents = pushed.tangents.permute(0, 2, 1).reshape(len(directions), *shape)
    outputs, bent = (each.T.reshape(shape) for each in (pushed.outputs, pushed.bent))
    return Jets(outputs, tangents, lambda: bent, second, len(weights))


def of_network(network: Callable[[Tensor], Tensor], parameters: Tensor, directions: Tensor) -> Jets:
    """Jets of the outputs (n, w) of any function of the parameters (D,), at one point, by automatic differentiation.

    `network` is this function, and `parameters` the point. `directions` are orthonormal rows (d, D). The degree of the
    jets is None, because networks with predictors or biases are not homogeneous: the jets hold at this point only.
    """

    def along(function: Callable[[Tensor], Tensor], direction: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda theta: jvp(function, (theta,), (direction,))[1]

    def second(cotangents: Tensor) -> Tensor:
        rows = []
        for cotangent in cotangents:
            slope = grad(lambda theta, fixed=cotangent: (fixed * network(theta)).sum())
            products = vmap(lambda v, slope=slope: along(slope, v)(parameters))(directions)
            rows.append(directions @ products.T)
        found = torch.stack(rows)
        return (found + found.mT) / 2

    tangents = vmap(lambda v: along(network, v)(parameters))(directions)

    def trace_of_second() -> Tensor:
        return vmap(lambda v: along(along(network, v), v)(parameters))(directions).sum(0)

    return Jets(network(parameters), tangents, trace_of_second, second)


def parts(jets: Jets, losses: Sequence[Loss], scales: Tensor, labels: Any = None) -> list[Parts]:
    """Mean losses, radial derivatives, G and H′ at the points αθ, for `scales` α (p,): one `Parts` for each loss.

    θ are the parameters at which the jets were computed. `labels` are those of the examples, if the losses need any.
    Raises ValueError if a scale is not 1 and the outputs are not homogeneous.
    """
    first, after = _powers(jets, scales)
    z, n = _outputs(jets, scales), len(jets.outputs)
    slopes = [loss.gradient(z, labels) / n for loss in losses]
    # One pass over K contracts it with the slopes of all losses.
    residuals = jets.second(torch.cat(slopes)).unflatten(0, (len(losses), -1))
    found = []
    for loss, slope, residual in zip(losses, slopes, residuals):
        curved = first[:, None, None] * _gauss_newton(jets, loss, z, labels) / n
        radial = torch.nan if jets.degree is None else jets.degree
        radial = radial * (slope * z).sum((1, 2))
        found.append(Parts(loss.total(z, labels) / n, radial, curved, after[:, None, None] * residual))
    return found


def traces(jets: Jets, loss: Loss, scales: Tensor, labels: Any = None) -> tuple[Tensor, Tensor]:
    """Traces (p,) of G and of H′ of the mean loss at the points αθ, for `scales` α (p,).

    θ are the parameters at which the jets were computed. `labels` are as in `parts`. Only the trace of K over
    directions is used, not K itself. Raises ValueError as `parts` does.
    """
    first, after = _powers(jets, scales)
    z, n = _outputs(jets, scales), len(jets.outputs)
    curved = _gauss_newton(jets, loss, z, labels).diagonal(dim1=1, dim2=2).sum(1)
    bent = torch.einsum("pnw,nw->p", loss.gradient(z, labels), jets.trace_of_second())
    return first * curved / n, after * bent / n


def radial_derivatives(jets: Jets, loss: Loss, scales: Tensor, labels: Any = None) -> Tensor:
    """Radial derivatives r∂_r (p,) of the mean loss at the points αθ, for `scales` α (p,).

    θ are the parameters at which the jets were computed. `labels` are as in `parts`. The outputs must be homogeneous.
    """
    assert jets.degree is not None, "the outputs are not homogeneous"
    z = _outputs(jets, scales)
    return jets.degree * (loss.gradient(z, labels) * z).sum((1, 2)) / len(z[0])


def _powers(jets: Jets, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Ratios (p,) of JᵀJ at the points αθ to JᵀJ at θ, and of K at αθ to K at θ, for `scales` α (p,).

    θ are the parameters at which the jets were computed. Raises ValueError if a scale is not 1 and the outputs are not
    homogeneous.
    """
    if jets.degree is None:
        if not (scales == 1).all():
            raise ValueError(
                "outputs are not homogeneous in the parameters, so jets at one scale do not give those at another: "
                "compute jets at each point, with the scale 1"
            )
        return scales, scales
    return scales ** (2 * jets.degree - 2), scales ** float(jets.degree - 2)


def _outputs(jets: Jets, scales: Tensor) -> Tensor:
    """Outputs (p, n, w) at the points αθ, for `scales` α (p,) and the parameters θ of the jets."""
    return scales[:, None, None] ** (jets.degree or 1) * jets.outputs


def _gauss_newton(jets: Jets, loss: Loss, z: Tensor, labels: Any) -> Tensor:
    """Jᵀℓ″J (p, d, d) of the total loss, with ℓ″ at outputs `z` (p, n, w), and J as in the `jets` at all p points."""
    classes = likeliest(z)
    return loss.gauss_newton(z, loss.relative(jets.tangents.mT, classes), classes, labels)[0]


class _Pushed:
    """Forward pass of m `inputs` (m, i) through dense ReLU layers, with tangents along d directions.

    `weights` has one matrix (o, i) for each layer; `directions` are (d, D). Results: `outputs` (e, m), which are Z; the
    `tangents` (d, e, m) of the outputs; and `bent` (e, m), the second derivatives ∂²Z/∂t_a² summed over directions a.
    """

    def __init__(self, weights: Sequence[Tensor], inputs: Tensor, directions: Tensor):
        sizes = [each.numel() for each in weights]
        self.weights, self.count = list(weights), len(inputs)
        self.moves = [part.reshape(-1, *w.shape) for part, w in zip(directions.split(sizes, 1), weights)]
        self.masks, self.along = [], []
        values, tangents, bent = inputs.T, inputs.new_empty(0), inputs.new_empty(0)  # The first layer replaces both.
        for number, (weight, moves) in enumerate(zip(weights, self.moves)):
            through = (moves.flatten(0, 1) @ values).unflatten(0, (len(moves), -1))
            if number:
                met = moves.transpose(0, 1).flatten(1) @ tangents.flatten(0, 1)
                through, bent = through + weight @ tangents, weight @ bent + 2 * met
            else:
                bent = torch.zeros_like(through[0])
            values, tangents = weight @ values, through
            if number < len(weights) - 1:
                mask = (values > 0).to(values)
                self.masks.append(mask)
                values, tangents, bent = values * mask, tangents * mask, bent * mask
                self.along.append(tangents)
        self.outputs, self.tangents, self.bent = values, tangents, bent
        # A layer adds to K only if some direction has entries in it and some in a layer before it.
        self.meet = [bool(moves.any() and along.any()) for moves, along in zip(self.moves[1:], self.along)]

    def second(self, cotangents: Tensor) -> Tensor:
        """Contractions Σ cotangent·K (p, d, d) of the second derivatives K of the outputs with `cotangents` (p, m, e).

        The sum runs over all outputs. It is accumulated over chunks of the inputs, so that K is never held as a whole.
        """
        d, e = self.tangents.shape[:2]
        widest = max((each.shape[1] for each in self.along), default=e)
        chunk = max(1, int(ENTRIES_PER_CHUNK / (e * d * (widest + d))))
        total = cotangents.new_zeros(len(cotangents), d * d)
        if not any(self.meet):
            return total.view(-1, d, d)
        for start in range(0, self.count, chunk):
            some = slice(start, min(start + chunk, self.count))
            total += cotangents[:, some].flatten(1) @ self._crossed(some)
        total = total.view(-1, d, d)
        return total + total.mT

    def _crossed(self, some: slice) -> Tensor:
        """Σ_l A_l·(V_{l,a} ḣ_{l−1,b}) for all directions a, b and each output of the inputs `some`, shape (m·e, d·d).

        K is the sum of this and of its transpose in a and b. `some` is a slice of m inputs. A_l are the adjoints of
        each output at layer l, V_{l,a} the entries of direction a in the weights of layer l, and ḣ_{l−1,b} the tangent
        of the inputs of layer l along direction b.
        """
        d, e = self.tangents.shape[:2]
        count = some.stop - some.start
        total, adjoint = self.tangents.new_zeros(count, e * d, d), None
        for weight, moves, mask, along in zip(
            self.weights[:0:-1], self.moves[:0:-1], self.masks[::-1], self.along[::-1]
        ):
            along = along[:, :, some].permute(2, 1, 0)
            if adjoint is None:
                total += moves.transpose(0, 1).flatten(0, 1) @ along
                adjoint = weight.expand(count, -1, -1)
            else:
                pulled = adjoint.flatten(0, 1) @ moves.transpose(0, 1).flatten(1)
                total.baddbmm_(pulled.view(count, e * d, -1), along)
                adjoint = adjoint @ weight
            adjoint = adjoint * mask.T[some, None]
        return total.view(count * e, d * d)
