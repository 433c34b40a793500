"""NetCDF files: how they are written, and the units and meaning of every variable in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr
import yaml

from goldilocks.files import whole_file, write_text

MEANINGS = {
    "eigenvalue": {"units": "loss", "long_name": "ascending eigenvalues of H_d, NaN beyond d"},
    "fraction_positive": {"units": "1", "long_name": "fraction of positive eigenvalues of H_d"},
    "trace_over_norm": {"units": "1", "long_name": "Tr(H_d)/‖H_d‖_F, excess positive curvature"},
    "trace": {"units": "loss", "long_name": "Tr(H_d)"},
    "frobenius_norm": {"units": "loss", "long_name": "‖H_d‖_F"},
    "spectral_norm": {"units": "loss", "long_name": "largest absolute eigenvalue of H_d"},
    "gauss_newton_trace": {"units": "loss", "long_name": "Tr(G_d), the Gauss–Newton part"},
    "gauss_newton_norm": {"units": "loss", "long_name": "‖G_d‖_F, the Gauss–Newton part"},
    "residual_norm": {"units": "loss", "long_name": "‖H′_d‖_F, H′ = H − G"},
    "effective_examples": {"units": "1", "long_name": "(Σt)²/Σt², t the traces of the examples' G_d"},
    "loss": {"units": "nat (cross-entropy)", "long_name": "mean loss"},
    "logits_std": {"units": "1", "long_name": "σ_z, deviation of an example's logits, root mean square over examples"},
    "radial_derivative": {"units": "loss", "long_name": "⟨∇L, θ⟩"},
    "layer_trace": {"units": "loss", "long_name": "σ_l² Tr(H_ll) of one layer's weights, from random probes"},
    "full_trace": {"units": "loss", "long_name": "Tr(ηHη) in full space, Hutchinson estimate"},
    "full_frobenius_norm": {"units": "loss", "long_name": "‖ηHη‖_F in full space, Hutchinson estimate"},
    "radius": {"units": "the study's radius unit", "long_name": "radius of the initialisation"},
    "x": {"units": "1", "long_name": "log10(r²/r_X²)"},
    "examples": {"units": "1", "long_name": "number N of examples that the loss is averaged over"},
    "dimension": {"units": "1", "long_name": "dimension d of the plane"},
    "classes": {"units": "1", "long_name": "number of classes"},
    "layer": {"units": "1", "long_name": "number of the weight layer, first to last"},
    "draw": {"units": "1", "long_name": "number of the random initialisation"},
    "line_loss": {"units": "nat", "long_name": "mean loss on lines through the initialisation"},
    "plane_loss": {"units": "nat", "long_name": "mean loss on a plane through the initialisation"},
    "direction": {"units": "1", "long_name": "number of the orthonormal direction of a line"},
    "displacement": {"units": "r, the initialisation's own norm", "long_name": "displacement along a line"},
    "first": {"units": "r, the initialisation's own norm", "long_name": "displacement along direction 0"},
    "second": {"units": "r, the initialisation's own norm", "long_name": "displacement along direction 1"},
}


def meaning(name: str) -> dict[str, str]:
    """Units and meaning of a variable or coordinate; of a variance over planes those of its variable, squared."""
    variable = name.removesuffix("_plane_variance")
    found = MEANINGS.get(variable, {})
    if variable == name or not found:
        return found
    return {"units": f"({found['units']})²", "long_name": f"variance over the planes of one draw: {found['long_name']}"}


def write_dataset(dataset: xr.Dataset, path: str | Path) -> None:
    """Write a NetCDF file, compressed and with checksums; numbers keep every bit."""
    protected = {"zlib": True, "complevel": 1, "fletcher32": True}
    encoding = {name: protected for name, array in dataset.data_vars.items() if array.ndim}
    with whole_file(path) as temporary:
        dataset.to_netcdf(temporary, encoding=encoding, engine="netcdf4")


@contextmanager
def opened(path: str | Path) -> Iterator[xr.Dataset]:
    """A NetCDF file, open; what is read from it inside the block may raise ValueError if the file is damaged."""
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            yield dataset
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: delete it and run again") from error


def read_dataset(path: str | Path) -> xr.Dataset:
    """The whole content of a NetCDF file. Raises ValueError if the file is damaged."""
    with opened(path) as dataset:
        return dataset.load()


def write_card(dataset: xr.Dataset, path: str | Path) -> None:
    """What is known of a dataset, in a small file that is read while the workflow loads."""
    training = int((dataset["split"] == 0).sum())
    card = {
        "image": list(dataset["images"].shape[1:]),
        "training_examples": training,
        "test_examples": dataset.sizes["example"] - training,
        **{name: dataset.attrs[name] for name in ("classes", "checksum", "source", "licence")},
        "stamp": dataset.attrs.get("stamp", ""),
    }
    write_text(yaml.safe_dump(card, allow_unicode=True), path)
