"""Checkpoints of training, in a module of their own so that code of curvature blocks does not depend on training."""

from pathlib import Path

from goldilocks_zone.config import records
from goldilocks_zone.config.models import Study
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.measurements import blocks
from goldilocks_zone.provenance import attributes
from goldilocks_zone.training import loop


def checkpoint(work: blocks.Work, study: Study, trained: dict, number: int) -> loop.Checkpoint:
    """Checkpoint from which an interrupted training run resumes; `number` is the index of the run within its job.

    The checkpoint has a key, which depends on the code, on the user's network, on the settings of the `study`, and on
    `trained`, which tells the data and, if a group may be another one elsewhere, its members. Training resumes from a
    file only if the key is unchanged.
    """
    own = work.own and work.own.record(work.job.network)
    known = {"code": work.code, "own": own, **trained}
    key = attributes.settings_hash({**known, **records.of_measurement(study, work.block.seed)})
    path = Path(work.job.path_to_checkpoints, f"{number:03d}.pt")
    return loop.Checkpoint(path, key, work.job.checkpoint_seconds, lifecycle.asked)
