"""A work consists of files with its name: studies, claims, a figure, published values and evidence in the paper; no
list is edited."""

import csv

import pytest
import xarray as xr
from pypdf import PdfReader

CONFIG = ["config/tiny.yaml", "mine.yaml"]
WORK = {
    "mine.yaml": "only: [curvature, medians]\nfigures: {model_kappa: null}\n",
    "config/studies/somebody_2030.yaml": """
studies:
  medians:
    datasets: [mnist]
    networks: [fc-10x2-tanh]
    subspaces: [plane-10-sparse]
    dimensions: [5, 10]
    examples: [20, 50]
    validation: 20
    radii: {first: 0.1, last: 10, number: 3}
    draws: 3
""",
    "config/claims/somebody_2030.yaml": """
work: Somebody 2030
sy1:
  statement: Some eigenvalues are positive.
  cases:
    everywhere:
      statement: At every radius.
      study: medians
      cell: {network: fc-10x2-tanh, subspace: plane-10-sparse, examples: 50}
      quantity: at_every_radius
      variable: fraction_positive
      dimension: 10
      window: [-2, 2]
      expect: positive
      unit: fraction
""",
    "scripts/goldilocks_zone/figures/somebody_2030/__init__.py": '"""Figures of Somebody (2030)."""\n',
    "scripts/goldilocks_zone/figures/somebody_2030/medians.py": '''"""Losses of single draws, nobody's medians."""

import matplotlib.pyplot as plt

FIGURE = {
    "id": "medians",
    "studies": ["medians"],
    "published": "resources/published/somebody_2030/losses.csv",
}


def draw(studies, settings, published):
    """A line for each draw."""
    figure, ax = plt.subplots()
    loss = studies["medians"]["loss"].isel(examples=0).squeeze(drop=True)
    ax.plot(loss["radius"], loss.transpose("radius", "draw"))
    return figure, loss.to_dataset()
''',
    "resources/published/somebody_2030/losses.csv": "x,y\n0,1\n",
    "resources/published/somebody_2030/settings.yaml": """
curvature:
  medians:
    {network: 784-10-10-10, dataset: MNIST, loss: none, initialisation: none, radii: 3, dimensions: 4, draws: none,
    planes: 1, planes_kind: none, metric: none, bias_directions: no, examples: one, inputs: none, dtype: abacus}
""",
    "paper/works/somebody_2030/zone.tex": r"""\subsection{Medians of losses}

Somebody found a fraction of \estimate{sy1.everywhere} (\verdict{sy1}), as Figure~\ref{fig:medians} shows.

\begin{figure}[tbp]
  \centering
  \begin{panels}{medians}
    \resultfigure{medians}
    \caption{Losses of single draws over the radius.}
    \label{fig:medians}
  \end{panels}
\end{figure}
""",
}


@pytest.mark.slow
def test_a_work_is_files_of_its_name(project):
    for name, text in WORK.items():
        path = project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = project.make("plan", "CONFIG=config/tiny.yaml mine.yaml")
    assert "medians" in done.stdout, done.stderr
    assert not (project.folder / "results/tiny/aggregate/medians.nc").exists()

    done = project.snakemake("all", config=CONFIG)
    assert done.returncode == 0, done.stderr
    study = xr.load_dataset(project.folder / "results/tiny/aggregate/medians.nc")
    assert study["loss"].sizes["draw"] == 3
    with open(project.folder / "results/tiny/claims.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["work"] == "Somebody 2030"]
    assert {row["verdict"] for row in rows} == {"reproduced"}
    data = xr.load_dataset(project.folder / "results/tiny/figures/medians.nc")
    assert (data["loss"].values == study["loss"].isel(examples=0).values.squeeze()).all()
    text = " ".join(page.extract_text() for page in PdfReader(project.folder / "paper/paper.pdf").pages)
    for part in (
        "abacus",
        "Medians of losses",
        "Losses of single draws over the radius",
        "Some eigenvalues are positive.",
    ):
        assert part in " ".join(text.split())
    assert '"medians": "Losses of single draws' in (project.folder / "results/tiny/report/figure.rst").read_text()
    assert project.dry_run("all", config=CONFIG) == {}
