"""The folder CHECKOUT, which contains this workflow's own files and does not depend on the working directory. Needs
nothing or, if another workflow imports this one from a hosting service, Snakemake's clone of the repository."""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from snakemake.exceptions import WorkflowError
from snakemake.sourcecache import HostingProviderFile


def checked_out(hosted):
    """Check out a repository of a hosting service below .snakemake/, and return the folder.

    `hosted` is Snakemake's reference to a file of the repository at some commit. The checkout is needed because
    Snakemake does not fetch the package that scripts import.
    """
    hosted.fetch_if_required()
    repository = hosted.hosted_repo.repo
    commit = repository.commit(hosted.ref).hexsha
    folder = Path(".snakemake", f"goldilocks-{commit}").absolute()
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as temporary:
            repository.clone(f"{temporary}/checkout").git.checkout(commit)
            # Another process may have made the checkout meanwhile.
            with suppress(OSError):
                os.rename(f"{temporary}/checkout", folder)
    return folder


def ours(path):
    """Path of a file of CHECKOUT, given its path relative to CHECKOUT.

    The result is relative if CHECKOUT is the working directory.
    """
    return str(path if Path.cwd() == CHECKOUT else CHECKOUT / path)


def all_ours(pattern):
    """The paths, as from `ours`, of the files of the checkout that match a pattern, sorted."""
    return [ours(path.relative_to(CHECKOUT)) for path in sorted(CHECKOUT.glob(pattern))]


source = workflow.current_basedir
if isinstance(source, HostingProviderFile):
    CHECKOUT = checked_out(source)
else:
    CHECKOUT = Path(source.get_path_or_uri(secret_free=True)).parents[1].resolve()
RULES = CHECKOUT / "workflow/rules"
if not (CHECKOUT / "scripts/goldilocks_zone").is_dir():
    raise WorkflowError(
        "goldilocks needs scripts/ of its repository: clone the repository and give the path of its workflow/Snakefile"
    )
