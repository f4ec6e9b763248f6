"""Class means, and how far from them something is."""

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional


def class_means(features: Float[Tensor, "tasks n d"], labels: Int64[Tensor, "tasks n"]) -> Float[Tensor, "tasks way d"]:
    """Mean features of each class; labels are 0 ... way-1, and every class is there."""
    members = functional.one_hot(labels).to(features.dtype).mT
    return members @ features / members.sum(-1, keepdim=True)


def squared_distances(query: Float[Tensor, "tasks n_query d"], means: Float[Tensor, "tasks way d"]) -> Float[Tensor, "tasks n_query way"]:
    """Squared Euclidean distances of all pairs."""
    # Written out as squares and a product: differences of all pairs would be `[tasks, n_query, way, d]`.
    squares = query.square().sum(-1, keepdim=True) + means.square().sum(-1)[:, None]
    return squares - 2 * query @ means.mT
