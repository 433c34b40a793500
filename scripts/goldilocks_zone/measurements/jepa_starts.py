"""Curvature of the loss at the initialisation of joint embeddings.

H_d is the Hessian (d, d) of the loss on a plane of d orthonormal directions.
Letters: m members, n pairs, d directions, D parameters.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from goldilocks_zone.curvature import jets
from goldilocks_zone.measurements import blocks
from goldilocks_zone.measurements.jepa_arms import Ensemble
from goldilocks_zone.models import initialisation
from goldilocks_zone.models.embedding_losses import Vicreg
from goldilocks_zone.subspaces import labels as subspace_labels
from goldilocks_zone.subspaces import planes


@dataclasses.dataclass(frozen=True)
class Started:
    """An ensemble of joint embeddings at its initialisation, which observables measure."""

    ensemble: Ensemble

    @property
    def is_known(self) -> bool:
        """True if the curvature on a plane can be measured: the networks must be Siamese, and the loss VICReg."""
        return self.ensemble.module.head is None and self.ensemble.arm.criterion == "vicreg"

    def kappas(self) -> np.ndarray:
        """Excess positive curvature Tr(H_d)/‖H_d‖_F (m,) of each member's loss; NaN where H_d vanishes.

        Members of one draw share the plane.
        """
        ensemble, found = self.ensemble, np.full(len(self.ensemble.members), np.nan)
        starts, _ = ensemble.starts()
        for draw in ensemble.draws:
            numbers = [i for i, member in enumerate(ensemble.members) if member.draw == draw]
            base = starts[numbers[0]]
            along = self._jets(base, draw)
            for i in numbers:
                # Starts of a draw lie on one ray.
                scale = (starts[i].norm() / base.norm())[None]
                (parts,) = jets.parts(along, [self._loss(i)], scale)
                matrix = parts.hessian[0]
                size = float(matrix.norm())
                found[i] = float(matrix.trace()) / size if size > 0 else np.nan
        return found

    def _jets(self, theta: Tensor, draw: int) -> jets.Jets:
        ensemble, study = self.ensemble, self.ensemble.study
        batch = ensemble.pairs.curved(draw, study.curvature_examples)
        inputs = torch.as_tensor(np.stack([batch.x[0], batch.y[0]], 1)).double()
        parameters = initialisation.parameters_of(ensemble.module)
        plane = subspace_labels.parse_plane(study.curvature_plane)
        stream = ensemble.work.stream("plane", plane.kind, draw)
        rows = planes.directions_as_drawn(plane, blocks.metric(study, parameters), stream)
        factor = torch.as_tensor(planes.cholesky(rows))
        rows = torch.as_tensor(rows if isinstance(rows, np.ndarray) else rows.toarray())
        directions = torch.linalg.solve_triangular(factor, rows, upper=False)
        pieces = theta.split([parameter.size for parameter in parameters])
        weights = [piece.view(parameter.shape) for piece, parameter in zip(pieces, parameters)]
        return jets.of_encoder(weights, inputs, directions)

    def _loss(self, number: int) -> Vicreg:
        study, own = self.ensemble.study, self.ensemble.criteria[number]
        return Vicreg(study.embedding, *own.weights, own.epsilon, own.hinge, group=study.group)
