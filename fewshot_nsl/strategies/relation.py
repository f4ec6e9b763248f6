"""The network by which RelationNet compares two maps."""

from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.backbones import NormReluPool2d
from fewshot_nsl.similarity import convert


class Relation(nn.Module):
    """Two blocks of 3x3 convolution, BN, ReLU and 2x2 max-pooling on both maps together, then two fully connected layers to a number.

    The first convolution of a pair's channels side by side is the sum of one of the way's map and one of the query's, so each map is
    convolved once, and not once a pair. With similarity each of the two has an M of its own. A map of one pixel is not pooled.

    Args:
        channels: of a map, and filters of both blocks.
        height: of a map, in pixels.
        width: of a map, in pixels.
        hidden: units between the fully connected layers.
        similarity: of the convolutions: "plain", "static" or "dynamic".
        structure: of M; by default what is usual.

    Raises:
        ConfigurationError: an unknown similarity or structure.
    """

    def __init__(
        self, channels: int, height: int, width: int, *, hidden: int = 8, similarity: str = "plain", structure: str | None = None
    ) -> None:
        super().__init__()

        def convolution() -> nn.Module:
            plain = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            return plain if similarity == "plain" else convert(plain, similarity, structure=structure)

        self.of_way, self.of_query = convolution(), convolution()
        self.first = _norm_and_pool(channels, height, width)
        height, width = _halved(height, width)
        self.second = nn.Sequential(convolution(), _norm_and_pool(channels, height, width))
        height, width = _halved(height, width)
        self.score = nn.Sequential(nn.Linear(channels * height * width, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(
        self, way: Float[Tensor, "tasks way c h w"], query: Float[Tensor, "tasks n_query c h w"]
    ) -> Float[Tensor, "tasks n_query way"]:
        """A number for each pair; its sigmoid is the relation score."""
        ways, queries = (
            convolution(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
            for convolution, maps in ((self.of_way, way), (self.of_query, query))
        )
        pairs = queries[:, :, None] + ways[:, None]
        maps = self.second(self.first(pairs.flatten(0, 2)))
        return self.score(maps.flatten(1)).view(pairs.shape[:3])


def _norm_and_pool(channels: int, height: int, width: int) -> nn.Module:
    pooled = min(height, width) > 1
    return NormReluPool2d(channels) if pooled else nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _halved(height: int, width: int) -> tuple[int, int]:
    return (height // 2, width // 2) if min(height, width) > 1 else (height, width)
