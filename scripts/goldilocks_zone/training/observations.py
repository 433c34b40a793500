"""Records of each network of an ensemble during training: losses, accuracies, norms, angles."""

import math

import torch
from torch import Tensor

from goldilocks_zone.subspaces.constraints import norms, products
from goldilocks_zone.training import ensembles


def snapshot(ensemble: ensembles.Ensemble, **evaluated: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Measurements of each member by name, of shape (m,) unless stated otherwise.

    `evaluated` maps names to sets of examples (inputs, labels). Each set gives <name>_loss and <name>_accuracy.

    With a member's parameters x, and x_0 at the start: norm, |x|; tensor_norm (m, t), the norm of each of the t
    parameter tensors; distance, |x − x_0|; start_cosine, the cosine of the angle between x and x_0.

    The first set also gives zero_logits, the share of logits that are exactly zero; gradient_norm, the norm of the
    gradient of the loss with respect to the coordinates (see `Ensemble.gradients`); and gradient_cosine, the cosine of
    the angle between this gradient and the coordinates (x itself in the whole space), NaN if either is zero.
    """
    found = {}
    for name, (inputs, labels) in reversed(evaluated.items()):
        classes = classified(ensemble, inputs, labels)
        found |= {f"{name}_accuracy": classes["accuracy"], f"{name}_loss": classes["loss"]}
        found["zero_logits"] = classes["zero_logits"]  # The first set comes last, and its share stays.
    here, start = ensemble.parameters(), ensemble.subset.forward(ensemble.subset.start)
    apart = [a - b for a, b in zip(here, start)]
    found["tensor_norm"] = torch.stack([norms([each]) for each in here], 1).double()
    found["norm"], found["distance"] = torch.linalg.vector_norm(found["tensor_norm"], dim=1), norms(apart).double()
    lengths = found["norm"] * norms(start).double()
    found["start_cosine"] = products(here, start).double() / lengths
    gradients = ensemble.gradients(*next(iter(evaluated.values())))
    found["gradient_norm"] = torch.linalg.vector_norm(gradients, dim=1).double()
    across = torch.linalg.vecdot(gradients, ensemble.coordinates).double()
    lengths = found["gradient_norm"] * torch.linalg.vector_norm(ensemble.coordinates, dim=1).double()
    # NaN where an angle is undefined: at the origin of a plane, and where the gradient vanishes.
    return {**found, "gradient_cosine": across / lengths}


class Progress:
    """Running sums over the steps so far, for each member: squared step lengths, and cosines of successive steps.

    `like` has one row for each member.
    """

    def __init__(self, like: Tensor):
        self._square, self._cosine = (torch.zeros(len(like), dtype=torch.float64) for _ in range(2))
        self._last, self._norm, self._count = None, None, 0

    def add(self, made: list[Tensor], rates: Tensor) -> None:
        """Add one step of each member.

        `made` are arrays (m, …), the parts of the steps divided by the learning `rates` (m,), as `Ensemble.step`
        returns them. Keeps a reference to `made`, which must stay unchanged until the next call has returned.
        """
        norm = norms(made)
        self._square += (norm * rates).square().double().cpu()
        if self._last is not None and self._norm is not None:
            self._cosine += (products(made, self._last) / (norm * self._norm)).double().cpu()
        self._last, self._norm, self._count = made, norm, self._count + 1

    def found(self) -> dict[str, Tensor]:
        """path_square and step_cosine, each (m,), as `loop.train` defines them."""
        pairs = max(self._count - 1, 0)
        cosine = self._cosine / pairs if pairs else torch.full_like(self._cosine, math.nan)
        return {"path_square": self._square.clone(), "step_cosine": cosine}

    def select(self, members: Tensor) -> None:
        """Keep only some of the members, given by their indices (m',)."""
        self._square, self._cosine = (each[members.cpu()] for each in (self._square, self._cosine))
        if self._last is not None and self._norm is not None:
            self._last, self._norm = [part[members] for part in self._last], self._norm[members]

    def state(self) -> dict:
        """All sums and the last step, by name, from which `restore` resumes."""
        return dict(vars(self))

    def restore(self, state: dict) -> None:
        """Resume from the sums and the last step in `state`, as the method `state` returns them."""
        vars(self).update(state)


def classified(ensemble: ensembles.Ensemble, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Accuracy, mean loss and share of zero logits of all members, each (m,), by name.

    `inputs` and `labels` are (n, …), or (m, n, …) if each member has its own examples. The loss is at each member's
    temperature. Accuracy is NaN for diverged members and for losses without classes. Losses are computed in double
    precision from the logits.
    """
    parameters, loss = ensemble.parameters(), ensemble.problem.loss
    hits = total = zeros = torch.zeros((), dtype=torch.float64, device=inputs.device)
    axis = int(inputs.ndim > ensemble.inputs.ndim - ensemble.options.own_examples)
    step = inputs.shape[axis] if loss.couples_examples else ensembles.EXAMPLES_AT_ONCE
    for x, y in zip(inputs.split(step, axis), labels.split(step, axis)):
        outputs = ensemble.logits(parameters, x).double() / ensemble.temperatures[:, None, None]
        hits = hits + ((outputs.argmax(2) == y).sum(1) if loss.classifies else math.nan)
        zeros = zeros + (outputs == 0).double().mean(2).sum(1)
        total = total + loss.total(outputs, y)
    # Accuracy is NaN for diverged members and for losses without classes.
    count = labels.shape[axis]
    right = torch.where(torch.isfinite(total), hits.double() / count, math.nan)
    return {"accuracy": right, "loss": total / count, "zero_logits": zeros / count}
