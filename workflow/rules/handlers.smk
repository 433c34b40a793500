"""Handlers of start and failure of a run. Needs THIS_RUN; makes the lock that keeps other runs out of the folder."""

import snakemake_logger_plugin_goldilocks as progress

from goldilocks_zone.cli import costs
from goldilocks_zone.data import catalogue
from goldilocks_zone.jobs import locks

# Folders that jobs write to.
WRITTEN = ("results", "figures", "paper")


def both(first, second):
    """Combine two of Snakemake's handlers, functions of the log, to one that calls `first`, then `second`."""
    return lambda log: (first(log), second(log))


def enter_run():
    """Acquire the run lock, remove leftovers of a crashed run, and store copies and hashes of datasets."""
    try:
        locks.enter_run()
        files.refuse_unwritable([*WRITTEN, "logs"])
    except (ValueError, OSError) as error:
        refuse(error)
    files.remove_leftovers(WRITTEN)
    catalogue.keep_datasets(runs.DATA)
    THIS_RUN.renew_stamps()


def expect_times():
    """Tell the logger how many seconds each job of this run is expected to take."""
    estimates = costs.Costs(SETTINGS, Path("logs"), [Path("results/data/cards")])
    progress.expected = {
        job.jobid: estimates.of(job.rule.name, job.wildcards_dict, str(job.benchmark or "")).seconds
        for job in workflow.dag.needrun_jobs()
        if job.rule.name not in costs.NOT_JOBS
    }


onstart:
    if workflow.is_main_process:
        enter_run()
        expect_times()
    # Snakemake starts at most a hundred jobs per second and, to that end, wakes up every second, one time more for each
    # job that has ended. On a single machine, that limit only causes delays.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None


onerror:
    files.remove_leftovers(WRITTEN)
    failures.report_failed_job(log)


# Snakemake ignores the handlers of a module, so they are chained to those of the importing workflow. If that workflow
# defines handlers after `use rule`, they replace both, and must call goldilocks.onstart() and goldilocks.onerror().
if not workflow.modifier.is_main_snakefile():
    workflow._onstart = both(workflow._onstart, onstart.func)
    workflow._onerror = both(workflow._onerror, onerror.func)
# --delete-all-output and --delete-temp-output remove results without starting a run, so the lock is acquired here.
if any(argument.startswith("--delete-") for argument in sys.argv[1:]):
    enter_run()
