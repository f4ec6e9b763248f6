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

    Nesterov's accelerated gradient with the constants of the problem: strong convexity `penalty`, smoothness `penalty` plus half a bound
    of the largest eigenvalue of the features' second moment. Every iterate is a sum of features, so the steps are taken on the
    coefficients of that sum: products with the Gram matrix `[n, n]`, however large d is.

    The answer is scikit-learn's without intercept, `LogisticRegression(C=1 / (n * penalty), fit_intercept=False)`, for three ways or
    more. For two ways scikit-learn's one row of weights is the difference of ours, with `C=2 / (n * penalty)`.

    Args:
        features: of the support images.
        labels: 0 ... way-1.
        penalty: more than 0.
        tolerance: length of the gradient at the answer, as a part of that at w = 0, or, where features hardly differ and that is nearly
            nothing, of a hundredth of the longest feature's. The answer is at most `|gradient| / penalty` from the optimum.

    Raises:
        TrainingError: not reached in 10,000 iterations, as with a tolerance below the arithmetic's precision.
    """
    n = features.shape[1]
    gram = features @ features.mT
    # Ways first: softmax over neighbours in memory, so few of them, takes five times as long.
    targets = functional.one_hot(labels).to(features.dtype).mT.contiguous()
    # The largest sum of a row is no less than the largest eigenvalue, and close to it where features point the same way.
    moment = gram.abs().sum(-1).amax(-1) / n
    smoothness = penalty + moment[:, None, None] / 2
    root = (smoothness / penalty).sqrt()
    momentum = (root - 1) / (root + 1)

    def gradient(coefficients: Tensor) -> Tensor:
        return ((coefficients @ gram).softmax(1) - targets) / n + penalty * coefficients

    def length(coefficients: Tensor) -> Tensor:
        return (coefficients * (coefficients @ gram)).sum((1, 2)).clamp(min=0).sqrt()

    coefficients = torch.zeros_like(targets)
    ahead = coefficients
    target = tolerance * torch.maximum(length(gradient(coefficients)), gram.diagonal(dim1=1, dim2=2).amax(1).sqrt() / 100)
    for iteration in range(MAX_ITERATIONS):
        step = gradient(ahead)
        # Reading the answer waits for a GPU, so it is asked for now and then.
        if iteration % 10 == 0 and bool((length(step) <= target).all()):
            return ahead @ features
        coefficients, previous = ahead - step / smoothness, coefficients
        ahead = coefficients + momentum * (coefficients - previous)
    raise TrainingError(
        f"logistic regression did not reach tolerance {tolerance:g} in {MAX_ITERATIONS} iterations; raise it, or the penalty {penalty:g}"
    )
