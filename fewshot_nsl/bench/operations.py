"""The arithmetic that a second-order meta-step cannot do without, as a count: its floor on a machine of known speed."""

from fewshot_nsl.bench.work import MetaWork

INNER, INNER_FIRST = 3 + 6, 2 + 2
"""Products of the forward pass's size that an inner step needs: in a layer that passes a gradient on to its input, and in the first.

Forward, the gradient of the input and that of the weights are three. Going back through the two gradients takes two products each,
and through the forward pass two more. The first layer passes nothing on: forward, weights; back through the latter one, through the
former one.
"""

OUTER, OUTER_FIRST = 3, 2
"""The same for the queries' pass, which is differentiated once."""


def layer_operations(work: MetaWork, images: int) -> list[int]:
    """Floating-point operations, two a product, of each 3x3 convolution's forward pass over so many images."""
    sides = [work.image_size // 2**depth for depth in range(4)]
    channels = [work.channels, work.width, work.width, work.width]
    return [2 * images * side**2 * 9 * c * work.width for side, c in zip(sides, channels, strict=True)]


def meta_step_operations(work: MetaWork) -> int:
    """Of all convolutions of one second-order step, computed as convolutions; BN, ReLU, pooling and the classifier count as nothing.

    The same for MAML and meta-static: a layer's M gets its gradient from that of its kernel.
    """
    inner, outer = (layer_operations(work, images) for images in (work.n_support, work.queries))
    a_step = INNER_FIRST * inner[0] + INNER * sum(inner[1:])
    at_the_end = OUTER_FIRST * outer[0] + OUTER * sum(outer[1:])
    return work.tasks * (work.steps * a_step + at_the_end)
