"""The arithmetic of dynamic similarity and of its gradient, a tile of output locations at a time.

What the taps see is K times the input's size. A tile's share of it stays in the processor's cache and is made again for the gradient, so
neither the time to move it nor the memory to keep it is paid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fewshot_nsl.similarity.scratch import Geometry, Scratch


def forward(input: Tensor, weight: Tensor, similarity: Tensor, geometry: Geometry) -> Tensor:
    """`[n, h_out, w_out, o]`.

    From input `[n, c, h, w]`, weight `[o, c / groups, kh, kw]` and similarity `[n, K, h_out, w_out]` or `[n, K, K, h_out, w_out]`.
    """
    groups = geometry.groups
    kernels, scratch = _grouped_kernels(weight, groups), Scratch(input, weight, geometry)
    output = input.new_empty(input.shape[0], scratch.height, scratch.width, groups, len(weight) // groups)
    for images in scratch.images():
        padded = scratch.padded("padded", images)
        scratch.inside(padded).copy_(input[images])
        for rows in scratch.rows():
            seen = _seen(scratch.windows("padded", padded, rows), scratch)
            patches = _mix(_locations_first(similarity[images, ..., rows, :]), seen, scratch)
            torch.bmm(_grouped(patches, groups), kernels.mT, out=output[images, rows].flatten(0, 2).transpose(0, 1))
    return output.flatten(3)


def backward(
    gradient: Tensor, input: Tensor, weight: Tensor, similarity: Tensor, geometry: Geometry, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients in input, weight and similarity, from that in the output `[n, o, h_out, w_out]`; one not `wanted` comes back empty."""
    groups = geometry.groups
    kernels, scratch = _grouped_kernels(weight, groups), Scratch(input, weight, geometry)
    of_input, of_weight, of_similarity = empty_gradients(input, weight, similarity, wanted)
    # Many tiles add to it: in half precision the small ones would be lost.
    of_kernels = torch.zeros_like(kernels, dtype=torch.promote_types(kernels.dtype, torch.float32))
    for images in scratch.images():
        padded = scratch.padded("padded", images)
        scratch.inside(padded).copy_(input[images])
        of_padded = scratch.padded("of_padded", images).zero_()
        for rows in scratch.rows():
            window = scratch.windows("padded", padded, rows)
            mixing = _locations_first(similarity[images, ..., rows, :])
            of_output = gradient[images, :, rows].permute(0, 2, 3, 1).reshape(-1, groups, kernels.shape[1]).transpose(0, 1)
            if wanted[1]:
                patches = _grouped(_mix(mixing, _seen(window, scratch), scratch), groups)
                # By halves: each of two cores then reads what it has just written.
                halves = (1 + (patches.shape[1] % 2 == 0), -1)
                of_kernels += (of_output.unflatten(1, halves).mT @ patches.unflatten(1, halves)).sum(1)
            if not (wanted[0] or wanted[2]):
                continue
            of_patches = scratch.take("of_patches", (groups, of_output.shape[1], kernels.shape[2]))
            of_patches = _ungrouped(torch.bmm(of_output, kernels, out=of_patches), (*mixing.shape[:4], input.shape[1]))
            if wanted[2]:
                of_mixing = _mixing_gradient(of_patches, window, mixing, scratch)
                _locations_first_view(of_similarity[images, ..., rows, :]).copy_(of_mixing)
            if wanted[0]:
                _add_back(scratch.windows("of_padded", of_padded, rows), of_patches, mixing, scratch)
        if wanted[0]:
            of_input[images] = scratch.inside(of_padded)
    if wanted[1]:
        o, c, kh, kw = weight.shape
        of_weight.copy_(of_kernels.view(o, kh, kw, c).permute(0, 3, 1, 2))
    return of_input, of_weight, of_similarity


def empty_gradients(input: Tensor, weight: Tensor, similarity: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """What the gradients are written to; input's and similarity's lie locations first in memory, as they are computed."""
    n, c, h, w = input.shape
    of_input = input.new_empty(n, h, w, c).permute(0, 3, 1, 2) if wanted[0] else input.new_empty(0)
    of_weight = weight.new_empty(weight.shape) if wanted[1] else weight.new_empty(0)
    first = [similarity.shape[i] for i in (0, -2, -1, *range(1, similarity.dim() - 2))]
    of_similarity = similarity.new_empty(first).movedim((1, 2), (-2, -1)) if wanted[2] else similarity.new_empty(0)
    return of_input, of_weight, of_similarity


def _locations_first_view(similarity: Tensor) -> Tensor:
    return similarity.movedim((-2, -1), (1, 2))


def _locations_first(similarity: Tensor) -> Tensor:
    """`[n, h, w, K]` or `[n, h, w, K, K]`, each location's M in one piece."""
    return _locations_first_view(similarity).contiguous()


def _seen(window: Tensor, scratch: Scratch) -> Tensor:
    """What the taps see, written out: `[n, h, w, K, c]`."""
    return scratch.take("seen", window.shape).copy_(window).flatten(3, 4)


def _mix(mixing: Tensor, seen: Tensor, scratch: Scratch) -> Tensor:
    """M times what the taps see. May overwrite `seen`."""
    if mixing.dim() == 4:
        return seen.mul_(mixing[..., None])
    patches = scratch.take("patches", seen.shape)
    torch.bmm(mixing.flatten(0, 2), seen.flatten(0, 2), out=patches.flatten(0, 2))
    return patches


def _add_back(of_window: Tensor, of_patches: Tensor, mixing: Tensor, scratch: Scratch) -> None:
    """Give each pixel its share from every window it is in, one tap after the other, since windows overlap."""
    taps = [tap for row in of_window.unbind(3) for tap in row.unbind(3)]
    if mixing.dim() == 4:
        for tap, of_patch, weight in zip(taps, of_patches.unbind(3), mixing[..., None].unbind(3), strict=True):
            tap.addcmul_(of_patch, weight)
        return
    of_seen = scratch.take("patches", of_patches.shape)
    torch.bmm(mixing.flatten(0, 2).mT, of_patches.flatten(0, 2), out=of_seen.flatten(0, 2))
    for tap, of_tap in zip(taps, of_seen.unbind(3), strict=True):
        tap += of_tap


def _mixing_gradient(of_patches: Tensor, window: Tensor, mixing: Tensor, scratch: Scratch) -> Tensor:
    if mixing.dim() == 4:
        product = scratch.take("seen", window.shape)
        return torch.mul(of_patches.view(window.shape), window, out=product).sum(-1).flatten(3)
    seen = _seen(window, scratch)
    return torch.bmm(of_patches.flatten(0, 2), seen.flatten(0, 2).mT).view(mixing.shape)


def _grouped_kernels(weight: Tensor, groups: int) -> Tensor:
    """`[groups, o, K * c]`, o and c those of one group."""
    return weight.unflatten(0, (groups, -1)).permute(0, 1, 3, 4, 2).flatten(2)


def _grouped(patches: Tensor, groups: int) -> Tensor:
    """`[groups, n * h * w, K * c]`; with one group, a view."""
    return patches.flatten(0, 2).unflatten(-1, (groups, -1)).permute(2, 0, 1, 3).flatten(2)


def _ungrouped(of_grouped: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The way back, to `[n, h, w, K, all channels]`."""
    groups = len(of_grouped)
    return of_grouped.view(groups, -1, shape[3], shape[4] // groups).permute(1, 2, 0, 3).reshape(shape)
