"""Logistic regressions of many tasks at once, to a stated tolerance."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.errors import TrainingError
from fewshot_nsl.precision import full_products

MAX_ITERATIONS = 10_000
_CHECK_EVERY = 4
"""Reading the answer waits for a GPU, so it is asked for now and then."""


@full_products()
def fit_logistic_regression(
    features: Float[Tensor, "tasks n d"], labels: Int64[Tensor, "tasks n"], *, penalty: float, tolerance: float = 1e-4
) -> Float[Tensor, "tasks way d"]:
    """Weights w of each task that minimise `mean cross entropy(w x) + penalty / 2 * |w|^2`, a strictly convex problem without bias.

    Steps through the inverse of a bound of the second derivative, which is the same at every w (Boehning 1992: half the features' second
    moment, plus the penalty), with Nesterov's momentum, which begins anew where it leads uphill (O'Donoghue and Candes 2015). Every
    iterate is a sum of features, so the steps are taken on the coefficients of that sum: products with the Gram matrix `[n, n]`, however
    large d is.

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
    bound = torch.linalg.inv(gram / (2 * n) + penalty * torch.eye(n, dtype=features.dtype, device=features.device))

    def gradient(coefficients: Tensor) -> Tensor:
        return ((coefficients @ gram).softmax(1) - targets) / n + penalty * coefficients

    coefficients = torch.zeros_like(targets)
    ahead, age = coefficients, features.new_zeros(len(features), 1, 1)
    longest = gram.diagonal(dim1=1, dim2=2).amax(1).sqrt()
    goal = torch.zeros_like(longest)
    for iteration in range(MAX_ITERATIONS):
        slope = gradient(ahead)
        # The same in the space of w.
        slope_of_features = slope @ gram
        if iteration % _CHECK_EVERY == 0:
            length = (slope * slope_of_features).sum((1, 2)).clamp(min=0).sqrt()
            if iteration == 0:
                goal = tolerance * torch.maximum(length, longest / 100)
            if bool((length <= goal).all()):
                return ahead @ features
        coefficients, previous = ahead - slope @ bound, coefficients
        uphill = (slope_of_features * (coefficients - previous)).sum((1, 2), keepdim=True) > 0
        age = torch.where(uphill, 0.0, age + 1)
        ahead = coefficients + age / (age + 3) * (coefficients - previous)
    raise TrainingError(
        f"logistic regression did not reach tolerance {tolerance:g} in {MAX_ITERATIONS} iterations; raise it, or the penalty {penalty:g}"
    )
