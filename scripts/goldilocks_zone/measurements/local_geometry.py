"""Local geometry of a loss in full space, at one point of training (Fort & Ganguli 2019).

H is the Hessian of the mean loss, G its Gauss–Newton part, and H′ = H − G. p are the softmax outputs, and y the one-hot
labels. Logit gradients are the gradients of the logits with respect to the parameters. Three standard deviations
describe the entries of vectors: σ_c, of the mean logit gradient over examples; σ_E, of the logit gradients of single
examples around this mean; and σ_z, of the logits. From these, `theory.random_model` predicts the spectrum of G: a bulk,
with an upper edge, and C − 1 outliers for C classes. The mixing is the mean of 1 − Σp² over examples.

Letters: n examples, k classes, D parameters, m eigenvalues.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks_zone.curvature import hessian, logit_gradient_pairs, logit_gradients, top_eigenvectors
from goldilocks_zone.measurements.observables import Axis, Variable
from goldilocks_zone.models import kernels, networks
from goldilocks_zone.models.problem import Problem
from goldilocks_zone.randomness import stream
from goldilocks_zone.spectra import lanczos
from goldilocks_zone.spectra.summaries import hutchinson
from goldilocks_zone.theory import random_model

# Sources of gradients: the examples of G; other training examples; held-out examples; and the examples of G with labels
# drawn from p, or with p − y permuted among examples.
SOURCES = ("spectrum", "other_batch", "held_out", "model_labels", "permuted")
PAIRS = ("same_logit_same_class", "same_logit", "other_logit", "other_logit_absolute")
LAYERS = ("all", "without_last")
ENDS = ("smallest", "largest")
# Inputs of the random model: its six numbers N, C, D, σ_c, σ_E and σ_z; these with σ_z replaced by the value that gives
# the measured mixing; the measured outputs in place of σ_z.
RUNGS = ("six_numbers", "matched_spread", "measured_outputs")
INPUT_PAIRS = ("same_class", "any_classes")
HESSIAN_TOLERANCE = 1e-4

_RANKS = "rank of the eigenvalue, largest first"
RANK = Axis("rank", lambda shape: range(1, shape.study.eigenvalues + 1), _RANKS, last=True)
GRADIENT_OF = Axis("gradient_of", lambda shape: SOURCES, "examples and labels of a gradient", last=True)
PAIR = Axis("pair", lambda shape: PAIRS, "pairs of logit gradients", last=True)
OF_LAYERS = Axis("layers", lambda shape: LAYERS, "layers of the logit gradients", last=True)
END = Axis("end", lambda shape: ENDS, "end of the spectrum", last=True)
RUNG = Axis("rung", lambda shape: RUNGS, "what the random model takes", last=True)
INPUT_PAIR = Axis("input_pair", lambda shape: INPUT_PAIRS, "pairs of inputs")

VARIABLES = (
    Variable("gauss_newton_eigenvalue", "loss", "largest eigenvalues of G in full space, descending", (RANK,)),
    Variable("hessian_eigenvalue", "loss", "largest eigenvalues of the Hessian in full space, descending", (RANK,)),
    Variable(
        "gradient_power", "1", "share of the squared gradient along each top eigenvector of G", (GRADIENT_OF, RANK)
    ),
    Variable("clustering", "1", "mean cosine of logit gradients of different examples", (PAIR, OF_LAYERS)),
    Variable("residual_extreme", "loss", "extreme eigenvalues of H′ in full space", (END,)),
    Variable("input_cosine", "1", "mean cosine of different inputs", (INPUT_PAIR,)),
    Variable("gauss_newton_full_trace", "loss", "Tr(G) in full space"),
    Variable("gauss_newton_full_norm", "loss", "‖G‖_F in full space"),
    Variable("hessian_full_trace", "loss", "Tr(H) in full space, by top eigenvalues and probes"),
    Variable("hessian_full_norm", "loss", "‖H‖_F in full space, by top eigenvalues and probes"),
    Variable("centred_edge", "loss", "largest eigenvalue of G from logit gradients centred over examples"),
    Variable("top_space_cosine", "1", "smallest cosine between the spaces of the C − 1 top eigenvectors of G and of H"),
    Variable("cluster_deviation", "1", "σ_c, deviation of the entries of mean logit gradients"),
    Variable("noise_deviation", "1", "σ_E, deviation of the examples' logit gradients from their mean"),
    Variable("logits_std", "1", "σ_z, deviation of an example's logits, root mean square over examples"),
    Variable("model_outlier", "loss", "mean of the C − 1 outliers of G that the random model predicts", (RUNG,)),
    Variable("model_outlier_ratio", "1", "first over last outlier that the random model predicts", (RUNG,)),
    Variable("model_edge", "loss", "edge of the bulk of G that the random model predicts", (RUNG,)),
    Variable("model_power", "1", "share of the squared gradient in the clusters' space, by the random model", (RUNG,)),
    Variable("model_kappa", "1", "Tr(G)/‖G‖_F in full space, by the random model", (RUNG,)),
    Variable("model_eigenvalue", "loss", "outliers of G that the random model predicts, descending", (RUNG, RANK)),
    Variable("formula_outlier", "loss", "Dσ_c²(1 − EΣp²)/(C − 1), the mean outlier without noise"),
    Variable("formula_kappa", "1", "√(C − 1) over the mean cosine of gradients of the same logit"),
    Variable("entropy", "nat", "mean entropy of the softmax's output p"),
    Variable("mixing", "1", "mean of 1 − Σp² over examples"),
    Variable("gradient_length", "1", "root mean square length of logit gradients"),
    Variable("trace_examples", "1", "(Σt)²/Σt², t the traces of the examples' G in full space"),
    Variable("held_out_entropy", "nat", "mean entropy of the softmax's outputs on held-out examples"),
    Variable("held_out_logits_std", "1", "standard deviation of the logits of held-out examples, root mean square"),
)
MODELLED = tuple(each.name for each in VARIABLES if each.axes == (RUNG,))


class Examples(NamedTuple):
    """Inputs (n, …) and labels (n,)."""

    inputs: Tensor
    labels: Tensor


class Sets(NamedTuple):
    """Three sets of examples.

    spectrum: training examples that define G and the Hessian. other: other training examples. held_out: examples that
    are not used for training.
    """

    spectrum: Examples
    other: Examples
    held_out: Examples


@dataclass(frozen=True)
class Options:
    """Options of a measurement.

    count: number m of top eigenvalues of G and of H. probes: number of random vectors from which the trace and norm of
    H are estimated. residual: whether to measure the extreme eigenvalues of H′. memory_mib: bound, in MiB, on the
    memory for products with the Hessian; by default as in `hessian.radial_sweep`.
    """

    count: int
    probes: int = 10
    residual: bool = False
    memory_mib: float | None = None


@kernels.differentiating
def measure(network: nn.Module, parameters: Tensor, sets: Sets, options: Options) -> dict[str, np.ndarray]:
    """Measure all VARIABLES at `parameters` (D,); return the values by name.

    The loss is the mean cross-entropy over `sets.spectrum`. Computations are in the precision of the inputs.
    residual_extreme is left out unless `options.residual` is true. The part of `clustering` without the last layer is
    NaN if the network's layers are unknown. Raises TooFewEigenvalues if G has fewer than `options.count` non-zero
    eigenvalues.
    """
    parameters = parameters.detach().clone()
    spectrum = sets.spectrum
    z, outside = (_logits(network, parameters, each.inputs) for each in (spectrum, sets.held_out))
    p, problem = torch.softmax(z, 1), Problem(network, *spectrum)
    classes, one_hot = p.shape[1], nn.functional.one_hot(spectrum.labels, p.shape[1]).to(p)
    factor, gradients = problem.loss.factor(z, spectrum.labels), logit_gradients.of(problem, parameters)
    assert factor is not None  # The cross-entropy is convex.
    top = logit_gradients.gauss_newton(gradients, factor, options.count)
    own = gradients.own()
    traces = logit_gradients.traces(own, factor)
    pairs = logit_gradient_pairs.measure(gradients, spectrum.labels, factor)
    found = {
        "gauss_newton_eigenvalue": top.eigenvalues,
        "gradient_power": _powers(sets, problem, parameters, gradients, top.cotangents, p),
        "gauss_newton_full_trace": float(traces.mean()),
        "gauss_newton_full_norm": pairs.frobenius_norm,
        "trace_examples": float(traces.sum() ** 2 / np.square(traces).sum()),
        "centred_edge": logit_gradients.gauss_newton(gradients, factor, 1, centred=True).eigenvalues[0],
        "clustering": _clusters(pairs),
        "input_cosine": _input_cosines(spectrum),
        "logits_std": _spread(z),
        "held_out_logits_std": _spread(outside),
        "entropy": _entropy(z),
        "held_out_entropy": _entropy(outside),
        "mixing": float(1 - p.square().sum(1).mean()),
        "gradient_length": float(own.diagonal(dim1=1, dim2=2).double().mean().sqrt()),
    }
    found |= _deviations(logit_gradients.of(Problem(network, sets.other.inputs), parameters), len(parameters))
    found |= modelled(p.cpu().numpy(), one_hot.cpu().numpy(), len(parameters), options.count, found)
    found["formula_outlier"] = len(parameters) * found["cluster_deviation"] ** 2 * found["mixing"] / (classes - 1)
    found["formula_kappa"] = np.sqrt(classes - 1) / found["clustering"][PAIRS.index("same_logit"), 0]
    return found | _hessian(problem, parameters, options, top, classes)


def outputs(network: nn.Module, parameters: Tensor, inputs: Tensor) -> Tensor:
    """Softmax outputs p (n, k) of `inputs` (n, …) at `parameters` (D,), in double precision."""
    return torch.softmax(_logits(network, parameters, inputs), 1)


def modelled(outputs: np.ndarray, one_hot: np.ndarray, size: int, count: int, measured: dict) -> dict[str, np.ndarray]:
    """Predictions of `theory.random_model` about G, by name, with one entry for each of RUNGS.

    RUNGS are three kinds of input for the random model. `outputs` and `one_hot` (n, k) are the measured softmax outputs
    p and the labels. `size` is D. `measured` holds σ_c, σ_E, σ_z and the mixing, by their names in VARIABLES. All
    predictions are arrays (RUNGS,), but model_eigenvalue, the outliers, is (RUNGS, count). Values are NaN if outliers
    do not separate from the bulk, or if no Gaussian logits give the measured mixing.
    """
    n, classes = outputs.shape
    cluster, noise = measured["cluster_deviation"], measured["noise_deviation"]
    found: dict[str, np.ndarray] = {name: np.full(len(RUNGS), np.nan) for name in MODELLED}
    found["model_eigenvalue"] = np.full((len(RUNGS), count), np.nan)
    for i, rung in enumerate(RUNGS):
        p, residuals = outputs, outputs - one_hot
        if rung != "measured_outputs":
            random, spread = stream("random model", rung), measured["logits_std"]
            if rung == "matched_spread":
                try:
                    spread = random_model.matching_spread(measured["mixing"], classes, random)
                except ValueError:
                    continue
            p = random_model.probabilities(n, classes, spread, random)
            residuals = p - random_model.one_hot_labels(p, random)
        limit = random_model.limit(p, size, cluster, noise)
        outliers = limit.outliers
        found["model_eigenvalue"][i, : classes - 1] = outliers[:count]
        found["model_edge"][i] = limit.edge
        found["model_outlier"][i] = outliers.mean()
        found["model_outlier_ratio"][i] = outliers[0] / outliers[-1]
        # If all outputs are saturated, G vanishes, and possibly the gradient too.
        with np.errstate(invalid="ignore"):
            found["model_kappa"][i] = random_model.kappa(p, size, cluster, noise)
            found["model_power"][i] = (
                random_model.power_given(residuals, cluster, noise)
                if rung == "measured_outputs"
                else random_model.power(cluster, noise, residuals)
            )
    return found


def _logits(network: nn.Module, parameters: Tensor, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return networks.logits_function(network)(parameters, inputs).double()


def _spread(logits: Tensor) -> float:
    return float(logits.var(1).mean().sqrt())


def _entropy(logits: Tensor) -> float:
    return float(torch.special.entr(torch.softmax(logits, 1)).sum(1).mean())


def _input_cosines(examples: Examples) -> np.ndarray:
    """Mean cosines between the inputs of two different examples, for the two kinds of pairs in INPUT_PAIRS.

    The first is for pairs in one class: the mean over pairs, and then over classes with two or more examples. The
    second is for all pairs.
    """
    units = torch.nn.functional.normalize(examples.inputs.flatten(1).double())

    def mean(some: Tensor) -> float:
        return float(some.sum(0).square().sum() - some.square().sum()) / (len(some) * (len(some) - 1))

    classes = [units[examples.labels == label] for label in examples.labels.unique()]
    return np.array([np.mean([mean(some) for some in classes if len(some) > 1]), mean(units)])


def _clusters(pairs: logit_gradient_pairs.Pairs) -> np.ndarray:
    """Values of the variable `clustering` (PAIRS, LAYERS): mean cosines of logit gradients, from measured `pairs`.

    The values without the last layer are NaN if the network's layers are unknown.
    """
    missing = dict.fromkeys(PAIRS, np.nan)
    of_layers = [vars(each) if each else missing for each in (pairs.clustering, pairs.without_last)]
    return np.array([[values[pair] for values in of_layers] for pair in PAIRS])


def _powers(
    sets: Sets, problem: Problem, parameters: Tensor, gradients: logit_gradients.LogitGradients, top: Tensor, p: Tensor
) -> np.ndarray:
    """Shares of the squared norms of loss gradients along each of m top eigenvectors of G, as an array (SOURCES, m).

    SOURCES names the examples and labels from which each loss gradient is computed. `gradients` are the logit gradients
    J of the examples that define G. `top` (m, n, k) are the coefficients that combine J to the eigenvectors
    (cotangents). `p` (n, k) are the softmax outputs on the same examples.
    """
    (n, classes), random = p.shape, stream("powers")
    drawn = (p.cumsum(1)[:, :-1].cpu() < torch.as_tensor(random.random((n, 1)))).sum(1).to(p.device)
    own = p - nn.functional.one_hot(sets.spectrum.labels, classes).to(p)
    residuals = {
        "spectrum": own,
        "model_labels": p - nn.functional.one_hot(drawn, classes).to(p),
        "permuted": own[torch.as_tensor(random.permutation(n), device=p.device)],
    }
    rows = []
    for source in SOURCES:
        if source in residuals:
            weighted = residuals[source].to(top) / n
            pushed = gradients.multiplied(weighted[None])[0]
            square = float((weighted.double() * pushed.double()).sum())
        else:
            examples = {"other_batch": sets.other, "held_out": sets.held_out}[source]
            logits = networks.logits_function(problem.network)
            theta = parameters.detach().requires_grad_()
            loss = nn.functional.cross_entropy(logits(theta, examples.inputs), examples.labels)
            (gradient,) = torch.autograd.grad(loss, theta)
            there = Problem(problem.network, sets.spectrum.inputs)
            (pushed,) = logit_gradients.pushed(there, parameters, gradient[None])
            square = float(gradient.double().square().sum())
        along = torch.einsum("mnk,nk->m", top.double(), pushed.double())
        rows.append((along.square() / square).cpu().numpy() if square else np.zeros(len(along)))
    return np.stack(rows)


def _deviations(gradients: logit_gradients.LogitGradients, size: int) -> dict[str, float]:
    """σ_c and σ_E, by the names cluster_deviation and noise_deviation, from logit gradients; `size` is D.

    σ_c is the standard deviation of the entries of the mean logit gradient over n examples, without the noise that
    single examples leave in this mean. σ_E is the standard deviation of the entries of the examples' logit gradients
    around this mean. Both are root mean squares over classes.
    """
    n, classes = gradients.examples, gradients.classes
    averages = torch.eye(classes, dtype=gradients.dtype, device=gradients.device)[:, None].expand(-1, n, -1) / n
    means = (averages.double() * gradients.multiplied(averages).double()).sum((1, 2))
    squares = gradients.own().diagonal(dim1=1, dim2=2).double().mean(0)
    within = (squares - means) * n / (n - 1)
    # Subtract the noise that remains in the mean of n examples.
    shared = (means - within / n).clamp_min(0)
    deviations = {"cluster_deviation": shared, "noise_deviation": within}
    return {name: float((square.mean() / size).sqrt()) for name, square in deviations.items()}


def _hessian(
    problem: Problem, parameters: Tensor, options: Options, top: logit_gradients.GaussNewton, classes: int
) -> dict[str, np.ndarray]:
    """Top eigenvalues, trace and norm of the Hessian, and a comparison of its eigenvectors with those of G, by name.

    top_space_cosine compares the spaces of the C − 1 top eigenvectors of G and of the Hessian, for C = `classes`: it is
    the cosine of the largest principal angle between them. If `options.residual` is true, the extreme eigenvalues of H′
    are returned, too. `top` are the eigenpairs of G, near which the search for eigenpairs of the Hessian starts.
    """
    # The eigenvectors of G are near those of H, so they are good starting vectors.
    known = logit_gradients.pulled(problem, parameters, top.cotangents).double().cpu().numpy()
    start = top_eigenvectors.start_near(known, len(parameters))
    search = lanczos.Search(start=start, tolerance=HESSIAN_TOLERANCE, single=True)
    values, vectors = top_eigenvectors.top_eigenpairs(problem, parameters, options.count, search, options.memory_mib)
    ours, theirs = np.linalg.qr(known[: classes - 1].T)[0], vectors[:, : classes - 1]
    products = hessian.hessian_products(problem, parameters, memory_mib=options.memory_mib)
    # Probes are orthogonal to the known eigenvectors, whose large eigenvalues would increase the estimator's variance.
    probes = stream("probes").standard_normal((options.probes, len(parameters)))
    probes -= (probes @ vectors) @ vectors.T
    rest = hutchinson(probes, products(probes))
    found = {
        "hessian_eigenvalue": values,
        "top_space_cosine": float(np.linalg.svd(ours.T @ theirs, compute_uv=False).min()),
        "hessian_full_trace": float(values.sum() + rest.trace),
        "hessian_full_norm": float(np.sqrt(np.square(values).sum() + rest.frobenius_norm**2)),
    }
    if options.residual:
        start = stream("residual").standard_normal(len(parameters))
        residual = hessian.hessian_products(problem, parameters, "residual", options.memory_mib)
        searches = [lanczos.Search(end, start, HESSIAN_TOLERANCE, own_threads=True) for end in ("SA", "LA")]
        ends = [lanczos.top_eigenpairs(residual, len(parameters), 1, search) for search in searches]
        found["residual_extreme"] = np.array([values[0] for values, _ in ends])
    return found
