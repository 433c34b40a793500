"""Checkpoints of training, in a module of their own so that code of curvature blocks does not depend on training."""

from pathlib import Path

from goldilocks_zone.config import records
from goldilocks_zone.config.models import Study
from goldilocks_zone.jobs import lifecycle
from goldilocks_zone.measurements import blocks
from goldilocks_zone.provenance import attributes
from goldilocks_zone.training import loop


def checkpoint(work: blocks.Work, study: Study, checksum: str, number: int) -> loop.Checkpoint:
    """Checkpoint of the training run with index `number` in a job: its file, key, and time between writes.

    The key depends on the code, the user's network, the data's `checksum` and the settings, so that training resumes
    only if all of these are unchanged.
    """
    own = work.own and work.own.record(work.job.network)
    known = {"code": work.code, "own": own, "checksum": checksum}
    key = attributes.settings_hash({**known, **records.of_measurement(study, work.block.seed)})
    path = Path(work.job.path_to_checkpoints, f"{number:03d}.pt")
    return loop.Checkpoint(path, key, work.job.checkpoint_seconds, lifecycle.asked)
