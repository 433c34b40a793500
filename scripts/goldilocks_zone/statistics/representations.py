"""Measures of representations: probes, energies of pairs, labels, and dimensions in use.

A probe is a ridge regression that predicts targets from embeddings. The energy of a pair is a squared distance, which
is meant to be low for compatible pairs. A dimension is in use if the variance of the embeddings along it exceeds
IN_USE.

Arrays may have any leading dimensions …, which are treated as a batch. Letters: n examples, e embedding dimensions, t
targets. The result is NaN where a measure is undefined, for example for a constant target or non-finite embeddings.
tests/unit/statistics/test_representations.py shows why these measures are preferred to alternatives (effective rank,
deviations of coordinates, probes alone).
"""

import numpy as np

from goldilocks_zone.statistics.estimates import ranks

PENALTY = 1e-3  # ridge penalty of a probe, relative to the mean square of the embeddings
IN_USE = 0.25  # smallest covariance eigenvalue of a dimension in use


def probed(embeddings: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit a ridge probe on the first n//2 examples, and return its predictions and the targets for the other examples.

    `embeddings` z are (…, n, e) and `targets` (…, n, t); both results are (…, n − n//2, t). The probe minimises ⟨|zW +
    b − target|²⟩ + PENALTY |W|². Before the fit, embeddings are centred and divided by one global scale, the root mean
    square after centring. Centre and scale are those of the first n//2 examples. The probe is therefore invariant to
    shifts, rotations and the scale of embeddings, and dimensions of little variance are penalised more than others. A
    probe of constant embeddings predicts the mean of the targets.
    """
    z, targets = _finite(embeddings), targets.astype(float)
    half = z.shape[-2] // 2
    z = z - z[..., :half, :].mean(-2, keepdims=True)
    scale = np.sqrt(np.mean(z[..., :half, :] ** 2, (-2, -1), keepdims=True))
    z = z / np.where(scale > 0, scale, 1)
    fitted, mean = z[..., :half, :], targets[..., :half, :].mean(-2, keepdims=True)
    transposed = np.swapaxes(fitted, -1, -2)
    squares = transposed @ fitted / half + PENALTY * np.eye(z.shape[-1])
    weights = np.linalg.solve(squares, transposed @ (targets[..., :half, :] - mean) / half)
    return z[..., half:, :] @ weights + mean, targets[..., half:, :]


def unexplained(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Fraction of variance unexplained (…,): squared error of predictions, divided by the variance of the targets.

    `predicted` and `targets` are (…, n, t); errors and variance are summed over examples and targets.
    """
    targets = targets.astype(float)
    error = np.sum((predicted - targets) ** 2, (-2, -1))
    spread = np.sum((targets - targets.mean(-2, keepdims=True)) ** 2, (-2, -1))
    return np.divide(error, spread, out=np.full(np.shape(spread), np.nan), where=spread > 0)


def r_squared_of_angles(embeddings: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """R² (…,) of probes of embeddings (…, n, e) that jointly predict (cos, sin) of angles (…, n), in radians.

    See `probed` for the probes.
    """
    return 1 - unexplained(*probed(embeddings, np.stack([np.cos(angles), np.sin(angles)], -1)))


def r_squared(embeddings: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """R² (…,) of probes (see `probed`) of embeddings (…, n, e) that jointly predict targets (…, n, t)."""
    return 1 - unexplained(*probed(embeddings, targets))


def accuracy(embeddings: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Accuracy (…,) of probes (see `probed`) that classify examples by their embeddings (…, n, e).

    `labels` (…, n) are class numbers. The probe predicts them as one-hot vectors over the `classes`, and the class with
    the largest output is the predicted one.
    """
    predicted, targets = probed(embeddings, np.eye(classes)[labels])
    share = np.mean(predicted.argmax(-1) == targets.argmax(-1), -1)
    return np.where(np.isnan(predicted).any((-2, -1)), np.nan, share)


def auc(compatible: np.ndarray, incompatible: np.ndarray) -> np.ndarray:
    """Probability (…,) that a random incompatible pair has a higher energy than a random compatible pair.

    The arguments are energies of compatible (…, n⁺) and incompatible (…, n⁻) pairs. Ties count one half. NaN if any
    energy is NaN.
    """
    n, m = compatible.shape[-1], incompatible.shape[-1]
    both = np.concatenate([compatible, incompatible], -1)
    ranked = np.apply_along_axis(ranks, -1, both)[..., n:].sum(-1)
    return np.where(np.isnan(both).any(-1), np.nan, (ranked - m * (m + 1) / 2) / (n * m))


def gap(compatible: np.ndarray, incompatible: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Mean energy (…,) of incompatible pairs minus that of compatible pairs, divided by the variance of the targets.

    `compatible` and `incompatible` (…, n) are the energies, squared distances in the space of embeddings. `targets` are
    embeddings (…, n, e). Energies and variance are sums over the e dimensions.
    """
    variance = total_variance(targets)
    difference = incompatible.mean(-1, dtype=float) - compatible.mean(-1, dtype=float)
    return np.divide(difference, variance, out=np.full(np.shape(variance), np.nan), where=variance > 0)


def information(told: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mutual information (…,) of `told` and `labels`, divided by the entropy of `labels`.

    Both arguments are discrete labels (…, n) of the same examples. The result is 1 if `told` determines `labels`. It is
    a plug-in estimate, which is biased upwards, the more so the more distinct values there are. `information_by_chance`
    gives the value that is expected by chance.
    """
    shape = labels.shape[:-1]
    pairs = zip(told.reshape(-1, told.shape[-1]), labels.reshape(-1, labels.shape[-1]))
    return np.array([_information(*pair) for pair in pairs]).reshape(shape)


def information_by_chance(
    told: np.ndarray, labels: np.ndarray, random: np.random.Generator, repeats: int = 20
) -> np.ndarray:
    """Mean (…,) of `information` of `told` and randomly permuted `labels` (…, n), over `repeats` permutations.

    The generator `random` draws the permutations, which exchange labels among examples.
    """
    return np.mean([information(told, random.permuted(labels, axis=-1)) for _ in range(repeats)], 0)


def covariance(embeddings: np.ndarray) -> np.ndarray:
    """Unbiased covariance (…, e, e) of embeddings (…, n, e)."""
    centred = _finite(embeddings)
    centred = centred - centred.mean(-2, keepdims=True)
    return np.swapaxes(centred, -1, -2) @ centred / (centred.shape[-2] - 1)


def dimensions_in_use(embeddings: np.ndarray) -> np.ndarray:
    """Number (…,) of directions along which embeddings (…, n, e) have a variance above IN_USE."""
    covariances = covariance(embeddings)
    known = np.all(np.isfinite(covariances), (-2, -1))
    count = np.sum(np.linalg.eigvalsh(np.where(known[..., None, None], covariances, 0)) > IN_USE, -1)
    return np.where(known, count, np.nan)


def total_variance(embeddings: np.ndarray) -> np.ndarray:
    """Variance (…,) of embeddings (…, n, e), summed over the e dimensions."""
    return _finite(embeddings).var(-2, ddof=1).sum(-1)


def deviation(embeddings: np.ndarray) -> np.ndarray:
    """Standard deviation σ (…,): root of the mean, over the e dimensions, of the variance of embeddings (…, n, e)."""
    return np.sqrt(total_variance(embeddings) / embeddings.shape[-1])


def _finite(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (…, n, e) in double precision, with all values NaN in batches that contain a non-finite value."""
    finite = np.isfinite(embeddings).all((-2, -1), keepdims=True)
    return np.where(finite, embeddings, np.nan).astype(float)


def _information(told: np.ndarray, labels: np.ndarray) -> float:
    """Mutual information of two labellings, `told` and `labels` (n,), divided by the entropy of `labels`."""
    rows, columns = (np.unique(each, return_inverse=True)[1] for each in (told, labels))
    joint = np.bincount(rows * (columns.max() + 1) + columns).astype(float)
    joint = np.pad(joint, (0, -len(joint) % (columns.max() + 1))).reshape(-1, columns.max() + 1) / len(labels)
    whole = _entropy(joint.sum(0))
    # Uses differences of entropies to avoid log 0.
    return (_entropy(joint.sum(1)) + whole - _entropy(joint)) / whole if whole > 0 else np.nan


def _entropy(shares: np.ndarray) -> float:
    known = shares[shares > 0]
    return float(-np.sum(known * np.log(known)))
