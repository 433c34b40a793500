"""The local geometry of a loss at one point of training, in full space: what Fort & Ganguli (2019) speak of.

G's largest eigenvalues and the powers of gradients along its eigenvectors, through the Gram matrix of logit gradients;
the Hessian's by Lanczos iteration; how logit gradients cluster; and the numbers that the random model takes.
Letters: n examples, k classes, D parameters, m eigenvalues.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks import curvature, eigenvectors, lanczos, logit_gradients, networks, random_model
from goldilocks.randomness import stream
from goldilocks.spectrum import hutchinson

# Of gradients: of the examples that G is of; of others trained on; held out; with labels from p; residuals permuted.
SOURCES = ("spectrum", "other_batch", "held_out", "model_labels", "permuted")
PAIRS = ("same_logit_same_class", "same_logit", "other_logit", "other_logit_absolute")
LAYERS = ("all", "without_last")
ENDS = ("smallest", "largest")
# Of the random model: from its six numbers; with the σ_z that gives the measured mixing; with measured outputs.
RUNGS = ("six_numbers", "matched_spread", "measured_outputs")
MODELLED = ("model_outlier", "model_outlier_ratio", "model_power", "model_kappa")
HESSIAN_TOLERANCE = 1e-4


class Examples(NamedTuple):
    """inputs (n, …) and labels (n,)."""

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Options:
    """count: how many eigenvalues m; probes: of the Hessian's trace and norm; residual: whether H′ is measured."""

    count: int
    probes: int = 10
    residual: bool = False
    memory_mib: float = 1024


def measure(
    network: nn.Module, parameters: Tensor, spectrum: Examples, other: Examples, held_out: Examples, options: Options
) -> dict[str, np.ndarray]:
    """All that is known of the point `parameters` (D,), by name.

    gauss_newton_eigenvalue and hessian_eigenvalue (m,), descending; gradient_power (SOURCES, m): shares of the squared
    gradient along the eigenvectors of G; centred_edge: the largest eigenvalue of G made of logit gradients less their
    mean; gauss_newton_full_trace and _norm, hessian_full_trace and _norm; top_space_cosine: the smallest cosine between
    the spaces of the k − 1 top eigenvectors of G and of the Hessian; clustering (PAIRS, LAYERS), on LAYERS known alone;
    cluster_deviation and noise_deviation, σ_c and σ_E, of the `other` examples; logits_std, entropy, mixing (1 − Σp²)
    and gradient_length of logits; trace_examples: (Σt)²/Σt² of the traces t of examples' G; with options.residual
    residual_extreme (ENDS,), the extreme eigenvalues of H′. And as `modelled` has it, what the random model predicts.

    All of the mean cross-entropy over `spectrum`, in the precision of its inputs.
    """
    logits = networks.logits_function(network)
    with torch.no_grad():
        z = logits(parameters, spectrum.inputs)
    p = torch.softmax(z.double(), 1)
    n, classes = p.shape
    products = logit_gradients.gram(network, parameters, spectrum.inputs)
    top = logit_gradients.gauss_newton(products, p, options.count)
    found = {
        "gauss_newton_eigenvalue": top.eigenvalues,
        "gradient_power": _powers(network, parameters, spectrum, other, held_out, products, p, top),
        "gauss_newton_full_trace": top.trace,
        "gauss_newton_full_norm": top.frobenius_norm,
        "trace_examples": _trace_examples(products, p),
        "logits_std": float(z.double().var(1).mean().sqrt()),
        "entropy": float(torch.special.entr(p).sum(1).mean()),
        "mixing": float(1 - p.square().sum(1).mean()),
        "gradient_length": float(products.diagonal().double().mean().sqrt()),
    }
    centred = logit_gradients.centred(products, classes)
    found["centred_edge"] = logit_gradients.gauss_newton(centred, p, 1).eigenvalues[0]
    del centred
    clusters = np.full((len(PAIRS), len(LAYERS)), np.nan)
    for j, layers in enumerate(LAYERS):
        if layers == "without_last":
            try:
                products = logit_gradients.gram(network, parameters, spectrum.inputs, without_last=True)
            except ValueError:
                continue
        cosines = logit_gradients.clustering(products, spectrum.labels)
        clusters[:, j] = [getattr(cosines, pair) for pair in PAIRS]
    found["clustering"] = clusters
    del products
    found |= _deviations(logit_gradients.gram(network, parameters, other.inputs), len(parameters), classes)
    one_hot = torch.nn.functional.one_hot(spectrum.labels, classes).to(p)
    found |= modelled(p.cpu().numpy(), one_hot.cpu().numpy(), len(parameters), found)
    return found | _hessian(network, parameters, spectrum, top, (n, classes), options)


def modelled(outputs: np.ndarray, one_hot: np.ndarray, size: int, measured: dict) -> dict[str, np.ndarray]:
    """What the random model predicts on each of RUNGS, with σ_c, σ_E and σ_z as `measured`, (RUNGS,) by name.

    model_outlier: mean of the k − 1 outliers of G; model_outlier_ratio: the first over the last; model_power: the share
    of the squared gradient along them; model_kappa: Tr G/‖G‖_F. NaN where not all outliers have left the bulk, or no
    Gaussian logits give the measured mixing.
    """
    n, classes = outputs.shape
    cluster, noise = measured["cluster_deviation"], measured["noise_deviation"]
    found = {name: np.full(len(RUNGS), np.nan) for name in MODELLED}
    for i, rung in enumerate(RUNGS):
        p, residuals = outputs, outputs - one_hot
        if rung != "measured_outputs":
            random = stream("random model", rung)
            spread = measured["logits_std"]
            if rung == "matched_spread":
                try:
                    spread = random_model.matching_spread(measured["mixing"], classes, random)
                except ValueError:
                    continue
            p = random_model.probabilities(n, classes, spread, random)
            residuals = p - random_model.one_hot_labels(p, "independent", random)
        outliers = random_model.limit(p, size, cluster, noise).outliers
        found["model_outlier"][i] = outliers.mean()
        found["model_outlier_ratio"][i] = outliers[0] / outliers[-1]
        # Where all outputs are saturated there is neither G nor, perhaps, a gradient.
        with np.errstate(invalid="ignore"):
            found["model_kappa"][i] = random_model.kappa(p, size, cluster, noise)
            found["model_power"][i] = (
                random_model.power_given(residuals, cluster, noise)
                if rung == "measured_outputs"
                else random_model.power(p, cluster, noise, residuals, "independent")
            )
    return found


def _powers(network, parameters, spectrum, other, held_out, products, p, top) -> np.ndarray:
    """gradient_power (SOURCES, m)."""
    n, classes = p.shape
    random = stream("powers")
    one_hot = torch.nn.functional.one_hot(spectrum.labels, classes).to(p)
    drawn = (p.cumsum(1)[:, :-1].cpu() < torch.as_tensor(random.random((n, 1)))).sum(1).to(p.device)
    own = p - one_hot
    residuals = {
        "spectrum": own,
        "model_labels": p - torch.nn.functional.one_hot(drawn, classes).to(p),
        "permuted": own[torch.as_tensor(random.permutation(n), device=p.device)],
    }
    rows = []
    for source in SOURCES:
        if source in residuals:
            weighted = residuals[source].flatten().to(products) / n
            pushed = products @ weighted
            square = float(weighted.double() @ pushed.double())
        else:
            examples = {"other_batch": other, "held_out": held_out}[source]
            logits = networks.logits_function(network)
            theta = parameters.detach().requires_grad_()
            loss = nn.functional.cross_entropy(logits(theta, examples.inputs), examples.labels)
            (gradient,) = torch.autograd.grad(loss, theta)
            pushed = logit_gradients.pushed(network, parameters, spectrum.inputs, gradient).flatten()
            square = float(gradient.double().square().sum())
        along = top.cotangents.double().T @ pushed.double()
        rows.append((along.square() / square).cpu().numpy() if square else np.zeros(len(along)))
    return np.stack(rows)


def _trace_examples(products: Tensor, p: Tensor) -> float:
    """(Σt)²/Σt² of the traces of each example's part of G."""
    n, classes = p.shape
    blocks = torch.stack([products.view(n, classes, n, classes)[i, :, i] for i in range(n)]).double()
    traces = (p * blocks.diagonal(dim1=1, dim2=2)).sum(1) - torch.einsum("nk,nkj,nj->n", p, blocks, p)
    return float(traces.sum() ** 2 / traces.square().sum())


def _deviations(products: Tensor, size: int, classes: int) -> dict[str, float]:
    """σ_c and σ_E: deviations of the entries of mean logit gradients, and of single ones from their mean.

    The mean's square is corrected for what the mean of n examples keeps of their own parts.
    """
    n = len(products) // classes
    blocks = products.view(n, classes, n, classes)
    means = torch.stack([blocks[:, k, :, k].double().mean() for k in range(classes)])
    squares = torch.stack([blocks[:, k, :, k].diagonal().double().mean() for k in range(classes)])
    within = (squares - means) * n / (n - 1)
    shared = (means - within / n).clamp_min(0)
    deviations = {"cluster_deviation": shared, "noise_deviation": within}
    return {name: float((square.mean() / size).sqrt()) for name, square in deviations.items()}


def _hessian(network, parameters, spectrum, top, shape, options) -> dict[str, np.ndarray]:
    """What is known of the Hessian and of H′."""
    inputs, labels = spectrum.inputs, spectrum.labels
    values, vectors = eigenvectors.top(
        network,
        parameters,
        inputs,
        labels,
        options.count,
        memory_mib=options.memory_mib,
        tolerance=HESSIAN_TOLERANCE,
    )
    count = shape[1] - 1
    cotangents = top.cotangents[:, :count].T.reshape(count, *shape)
    ours = logit_gradients.pulled(network, parameters, inputs, cotangents).double().cpu().numpy()
    theirs, _ = np.linalg.qr(vectors[:, :count])
    basis, _ = np.linalg.qr(ours.T)

    multiply = {
        part: curvature.hessian_products(network, parameters, inputs, labels, part=part, memory_mib=options.memory_mib)
        for part in ("hessian", "gauss_newton")
    }

    def products(rows: np.ndarray, part: str = "hessian") -> np.ndarray:
        return multiply[part](torch.as_tensor(rows).to(parameters)).double().cpu().numpy()

    # Across the eigenvectors that are known: a few large eigenvalues would make estimates of the norm vary.
    probes = stream("probes").standard_normal((options.probes, len(parameters)))
    probes -= (probes @ vectors) @ vectors.T
    rest = hutchinson(probes, products(probes))
    found = {
        "hessian_eigenvalue": values,
        "top_space_cosine": float(np.linalg.svd(basis.T @ theirs, compute_uv=False).min()),
        "hessian_full_trace": float(values.sum() + rest.trace),
        "hessian_full_norm": float(np.sqrt(np.square(values).sum() + rest.frobenius_norm**2)),
    }
    if options.residual:
        start = stream("residual").standard_normal(len(parameters))

        def residual(rows: np.ndarray) -> np.ndarray:
            return products(rows) - products(rows, "gauss_newton")

        found["residual_extreme"] = np.array(
            [
                lanczos.top_eigenpairs(
                    residual, len(parameters), 1, which=which, start=start, tolerance=HESSIAN_TOLERANCE
                )[0][0]
                for which in ("SA", "LA")
            ]
        )
    return found
