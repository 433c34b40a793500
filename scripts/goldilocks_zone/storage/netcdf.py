"""NetCDF files: how they are written, and the units and meaning of every variable in them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Before HDF5 is loaded, which else refuses files on drives without locks, and those that a notebook has open. Files
# here are whole once they have their names: no lock is needed.
os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"

import xarray as xr
import yaml

from goldilocks_zone.storage.files import refuse_unreadable, whole_file, write_text

# Attributes of a user's own dataset: of which files, from where and by which keys it was read.
OF_OWN_FILES = ("identity", "place", "channels", "white", "stamp")
MEANINGS = {
    "eigenvalue": {"units": "loss", "long_name": "ascending eigenvalues of H_d, NaN beyond d"},
    "fraction_positive": {"units": "1", "long_name": "fraction of positive eigenvalues of H_d"},
    "trace_over_norm": {"units": "1", "long_name": "Tr(H_d)/‖H_d‖_F, excess positive curvature"},
    "trace": {"units": "loss", "long_name": "Tr(H_d)"},
    "frobenius_norm": {"units": "loss", "long_name": "‖H_d‖_F"},
    "spectral_norm": {"units": "loss", "long_name": "largest absolute eigenvalue of H_d"},
    "gauss_newton_trace": {"units": "loss", "long_name": "Tr(G_d), the Gauss–Newton part"},
    "gauss_newton_norm": {"units": "loss", "long_name": "‖G_d‖_F, the Gauss–Newton part"},
    "gauss_newton_spectral_norm": {"units": "loss", "long_name": "largest eigenvalue of G_d"},
    "residual_trace": {"units": "loss", "long_name": "Tr(H′_d), H′ = H − G"},
    "residual_norm": {"units": "loss", "long_name": "‖H′_d‖_F, H′ = H − G"},
    "residual_spectral_norm": {"units": "loss", "long_name": "largest absolute eigenvalue of H′_d"},
    "frozen_softmax": {"units": "1", "long_name": "κ with diag p − ppᵀ in G as at the reference radius"},
    "frozen_residual": {"units": "1", "long_name": "κ with p − y in H′ as at the reference radius"},
    "frozen_scale": {"units": "1", "long_name": "κ with the logit gradients in G as large as at the reference radius"},
    "effective_examples": {"units": "1", "long_name": "(Σt)²/Σt², t the traces of the examples' G_d"},
    "loss": {"units": "nat (cross-entropy)", "long_name": "mean loss"},
    "logits_std": {"units": "1", "long_name": "σ_z, deviation of an example's logits, root mean square over examples"},
    "radial_derivative": {"units": "loss", "long_name": "⟨∇L, θ⟩"},
    "zero_logits": {"units": "1", "long_name": "share of the logits that are exactly zero"},
    "overflow": {"units": "1", "long_name": "1 where logits or the Hessian are not finite, and all else missing"},
    "entropy": {"units": "nat", "long_name": "mean entropy of the softmax's output p"},
    "prior_mismatch": {"units": "1", "long_name": "‖Q − Q̂‖₂, Q the classes' shares, Q̂ the mean of p"},
    "softmax_ratio": {"units": "1", "long_name": "Γ = Tr(M)/‖M‖_F, M = ⟨diag p − ppᵀ⟩"},
    "class_gradient": {"units": "1", "long_name": "σ_C, root mean square entry of the mean logit gradients"},
    "example_gradient": {"units": "1", "long_name": "σ_E, deviation of the examples' logit gradients from their mean"},
    "gradient_norm": {"units": "nat per parameter", "long_name": "norm of the gradient within the subspace"},
    "forced_gradient_norm": {
        "units": "nat per parameter",
        "long_name": "norm of the gradient where constants added to the logits make Q̂ = Q",
    },
    "forced_mismatch": {"units": "1", "long_name": "‖Q − Q̂‖₂ that is left where constants are added to the logits"},
    "class_gradient_norm": {"units": "1", "long_name": "root mean square over classes of ‖⟨∇z_k⟩‖"},
    "top_eigenvalue": {"units": "loss", "long_name": "largest eigenvalues of the Hessian in full space, descending"},
    "eigenvector_image": {
        "units": "1",
        "long_name": "first layer's part of a top eigenvector, averaged over units and channels",
    },
    "eigenvector": {"units": "1", "long_name": "number of the eigenvector, of the largest eigenvalue first"},
    "layer_trace": {"units": "loss", "long_name": "σ_l² Tr(H_ll) of one layer's weights, from random probes"},
    "layer_residual": {"units": "1", "long_name": "largest |vᵀH′v|/‖H′v‖ of random v inside one layer's weights"},
    "full_trace": {"units": "loss", "long_name": "Tr(ηHη) in full space, Hutchinson estimate"},
    "full_frobenius_norm": {"units": "loss", "long_name": "‖ηHη‖_F in full space, Hutchinson estimate"},
    "training_accuracy": {"units": "1", "long_name": "share of training examples classified rightly"},
    "training_loss": {"units": "nat", "long_name": "mean loss, at the temperature of training, on training examples"},
    "validation_accuracy": {"units": "1", "long_name": "share of held-out training examples classified rightly"},
    "validation_loss": {
        "units": "nat",
        "long_name": "mean loss, at the temperature of training, on held-out training examples",
    },
    "test_accuracy": {"units": "1", "long_name": "share of test examples classified rightly, at the end"},
    "test_loss": {
        "units": "nat",
        "long_name": "mean loss, at the temperature of training, on test examples, at the end",
    },
    "diverged": {"units": "1", "long_name": "1 where training ended in values that are not finite, else 0"},
    "norm": {"units": "parameters", "long_name": "|x|, norm of all parameters"},
    "tensor_norm": {"units": "parameters", "long_name": "norm of each parameter tensor"},
    "distance": {"units": "parameters", "long_name": "|x − x_0| from the start"},
    "start_cosine": {"units": "1", "long_name": "cosine of the angle between x and the start x_0"},
    "gradient_cosine": {
        "units": "1",
        "long_name": "cosine of the angle between the gradient and x, within the subspace",
    },
    "sharpness": {"units": "loss", "long_name": "largest eigenvalue of the Hessian in full space"},
    "gauss_newton_eigenvalue": {"units": "loss", "long_name": "largest eigenvalues of G in full space, descending"},
    "hessian_eigenvalue": {
        "units": "loss",
        "long_name": "largest eigenvalues of the Hessian in full space, descending",
    },
    "gradient_power": {"units": "1", "long_name": "share of the squared gradient along each top eigenvector of G"},
    "centred_edge": {
        "units": "loss",
        "long_name": "largest eigenvalue of G made of logit gradients less their mean over examples",
    },
    "gauss_newton_full_trace": {"units": "loss", "long_name": "Tr(G) in full space"},
    "gauss_newton_full_norm": {"units": "loss", "long_name": "‖G‖_F in full space"},
    "hessian_full_trace": {"units": "loss", "long_name": "Tr(H) in full space, by top eigenvalues and probes"},
    "hessian_full_norm": {"units": "loss", "long_name": "‖H‖_F in full space, by top eigenvalues and probes"},
    "top_space_cosine": {
        "units": "1",
        "long_name": "smallest cosine between the spaces of the C − 1 top eigenvectors of G and of H",
    },
    "residual_extreme": {"units": "loss", "long_name": "extreme eigenvalues of H′ in full space"},
    "clustering": {"units": "1", "long_name": "mean cosine of logit gradients of different examples"},
    "cluster_deviation": {"units": "1", "long_name": "σ_c, deviation of the entries of mean logit gradients"},
    "noise_deviation": {"units": "1", "long_name": "σ_E, deviation of the examples' logit gradients from their mean"},
    "mixing": {"units": "1", "long_name": "mean of 1 − Σp² over examples"},
    "gradient_length": {"units": "1", "long_name": "root mean square length of logit gradients"},
    "trace_examples": {"units": "1", "long_name": "(Σt)²/Σt², t the traces of the examples' G in full space"},
    "held_out_entropy": {"units": "nat", "long_name": "mean entropy of the softmax's outputs on held-out examples"},
    "held_out_logits_std": {
        "units": "1",
        "long_name": "standard deviation of the logits of held-out examples, root mean square",
    },
    "input_cosine": {"units": "1", "long_name": "mean cosine of different inputs"},
    "outputs": {"units": "1", "long_name": "the softmax's outputs on held-out examples"},
    "output_label": {"units": "1", "long_name": "labels of these examples"},
    "formula_outlier": {"units": "loss", "long_name": "Dσ_c²(1 − EΣp²)/(C − 1), the mean outlier without noise"},
    "formula_kappa": {"units": "1", "long_name": "√(C − 1) over the mean cosine of gradients of the same logit"},
    "model_eigenvalue": {"units": "loss", "long_name": "outliers of G that the random model predicts, descending"},
    "model_edge": {"units": "loss", "long_name": "edge of the bulk of G that the random model predicts"},
    "model_outlier": {"units": "loss", "long_name": "mean of the C − 1 outliers of G that the random model predicts"},
    "model_outlier_ratio": {
        "units": "1",
        "long_name": "first over last of the outliers that the random model predicts",
    },
    "model_power": {
        "units": "1",
        "long_name": "share of the squared gradient in the clusters' space, by the random model",
    },
    "model_kappa": {"units": "1", "long_name": "Tr(G)/‖G‖_F in full space, by the random model"},
    "rank": {"units": "1", "long_name": "number of the eigenvalue, of the largest first"},
    "path_square": {"units": "parameters²", "long_name": "sum of the squared lengths of all steps so far"},
    "step_cosine": {"units": "1", "long_name": "mean cosine of the angle between successive steps so far"},
    "step": {"units": "1", "long_name": "steps of the optimiser so far"},
    "tensor": {"units": "1", "long_name": "number of the parameter tensor, first to last"},
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
    """A NetCDF file, open; what is read from it inside the block may raise, as opening it does.

    Raises ValueError if the file is damaged, OSError if it cannot be read.
    """
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            yield dataset
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        refuse_unreadable(path)
        raise ValueError(f"{path} is damaged: delete it and run again") from error


def read_dataset(path: str | Path) -> xr.Dataset:
    """The whole content of a NetCDF file. Raises ValueError if it is damaged, OSError if it cannot be read."""
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
        **{name: value for name, value in dataset.attrs.items() if name in OF_OWN_FILES},
    }
    # Numbers that come from a file are numpy's.
    card = {name: value.item() if hasattr(value, "item") else value for name, value in card.items()}
    write_text(yaml.safe_dump(card, allow_unicode=True), path)
