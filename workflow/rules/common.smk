"""Definitions that all rules share. Needs the configuration; makes THIS_RUN, the run with the records of its settings
and code. Records are files named by the hash of their content, so that reruns are correct even after .snakemake/ is
lost.

Loading the workflow writes nothing, because Snakemake does not report whether a run follows.
"""

import sys

from snakemake.utils import update_config

sys.path.insert(0, str(CHECKOUT / "scripts"))

from goldilocks_zone.config import kinds, load
from goldilocks_zone.config import run as runs
from goldilocks_zone.data import official_shapes
from goldilocks_zone.jobs import failures, lifecycle
from goldilocks_zone.provenance import records
from goldilocks_zone.storage import files


def recorded(place):
    """Path of the record at `place`, a path without the hash, as an input of a rule.

    Jobs on a cluster use the record that their run has written. If the record is missing, its job is forced, so that
    the jobs that need the record run, too: once .snakemake/ is lost, Snakemake does not rerun a job because an input
    was missing.
    """
    try:
        path = THIS_RUN.path_of(place, started=workflow.remote_exec)
    except ValueError as error:
        raise WorkflowError(str(error)) from None
    if not Path(path).exists():
        workflow.dag.forcefiles.add(path)
    return path


def record(place):
    """Input function of a rule: it fills the wildcards into `place` and returns the path of the record there."""
    return lambda wildcards: recorded(place.format(**dict(wildcards.items())))


def own_networks(labels):
    """The paths of the records of those networks among `labels` that are the user's own."""
    return [recorded(place) for place in THIS_RUN.networks_of(labels)]


def grown(amount):
    """Function for a rule's resource: `amount` times the number of the attempt, so that retries get more."""
    return lambda wildcards, attempt: amount * attempt


def refuse(error):
    """Stop Snakemake with the message of an error, and report the message to `make`."""
    failures.report(str(error))
    raise WorkflowError(str(error)) from None


try:
    lifecycle.isolate(CHECKOUT)
    lifecycle.refuse_path(Path.cwd())
    lifecycle.keep_memory()
    # Any call of Snakemake writes to .snakemake/.
    files.refuse_unwritable(["."])
    lifecycle.name_to_jobs(first=workflow.is_main_process)
    if workflow.modifier.skip_configfile:
        # The importing workflow's configuration is merged over ours, as --configfile is.
        config, given = load.read(load.shipped()), config
        update_config(config, given)
    THIS_RUN = runs.load_run(config, CHECKOUT)
except (ValueError, OSError) as error:
    refuse(error)
RUN, SETTINGS = THIS_RUN.name, THIS_RUN.config
for reason in THIS_RUN.left_out.values():
    print(f"left out: {reason}", file=sys.stderr)


wildcard_constraints:
    run=RUN,
    study="|".join(SETTINGS.studies),
    dataset="[a-z0-9_]+",
    figure="|".join(SETTINGS.figures),
    block=r"[a-z0-9-]+",
