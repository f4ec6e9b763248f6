"""Logistic regressions of many tasks at once, to a stated tolerance."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.errors import TrainingError
from fewshot_nsl.precision import full_products

MAX_ITERATIONS = 10_000


@full_products()
def fit_logistic_regression(
    features: Float[Tensor, "tasks n d"], labels: Int64[Tensor, "tasks n"], *, penalty: float, tolerance: float = 1e-4
) -> Float[Tensor, "tasks way d"]:
    """Weights w of each task that minimise `mean cross entropy(w x) + penalty / 2 * |w|^2`, a strictly convex problem without bias.

    Nesterov's accelerated gradient with the constants of the problem: strong convexity `penalty`, smoothness `penalty` plus half the
    largest eigenvalue of the features' second moment. (scikit-learn's `C` is `1 / (n * penalty)`.)

    Args:
        features: of the support images.
        labels: 0 ... way-1.
        penalty: more than 0.
        tolerance: largest absolute entry of the gradient at the answer, as a part of that at w = 0.

    Raises:
        TrainingError: not reached in 10,000 iterations, as with a tolerance below the arithmetic's precision.
    """
    n = features.shape[1]
    targets = functional.one_hot(labels).to(features.dtype)
    moment = torch.linalg.eigvalsh(features @ features.mT / n)[:, -1]
    smoothness = penalty + moment[:, None, None] / 2
    root = (smoothness / penalty).sqrt()
    momentum = (root - 1) / (root + 1)

    def gradient(weights: Tensor) -> Tensor:
        residual = (features @ weights.mT).softmax(-1) - targets
        return residual.mT @ features / n + penalty * weights

    weights = features.new_zeros(*targets.shape[::2], features.shape[2])
    ahead = weights
    target = tolerance * gradient(weights).abs().amax((1, 2))
    for iteration in range(MAX_ITERATIONS):
        step = gradient(ahead)
        # Reading the answer waits for a GPU, so it is asked for now and then.
        if iteration % 10 == 0 and bool((step.abs().amax((1, 2)) <= target).all()):
            return ahead
        weights, previous = ahead - step / smoothness, weights
        ahead = weights + momentum * (weights - previous)
    raise TrainingError(
        f"logistic regression did not reach tolerance {tolerance:g} in {MAX_ITERATIONS} iterations; raise it, or the penalty {penalty:g}"
    )
