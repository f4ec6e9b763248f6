import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import BACKBONES, ModelDescription, build_model, with_batch_statistics, with_first_statistics
from fewshot_nsl.inner_loop import LoopedNetwork, Parameters, TaskNetwork
from fewshot_nsl.inner_loop.grouped import GroupedNetwork, can_be_grouped
from fewshot_nsl.kernels import Kernels, NativeKernels, PlainKernels, build_native, compiler
from fewshot_nsl.similarity import StaticSimilarityConv2d, convert

GROUPED = ("cnn4", "cnn4-maps", "cnn9", "plain-cifar", "plain-imagenet")
TASKS = 2


@pytest.fixture(params=["plain", pytest.param("native", marks=pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"))])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return NativeKernels(build_native()) if request.param == "native" else PlainKernels()


def _build(backbone: str, similarity: str = "plain") -> nn.Module:
    torch.manual_seed(0)
    description = ModelDescription(
        backbone=backbone,
        image_size=32 if backbone in ("plain-imagenet", "resnet18", "resnet50") else 16,
        channels=3,
        width=4,
        mean=(127.5,) * 3,
        std=(64.0,) * 3,
        similarity="dynamic" if similarity == "dynamic" else "plain",
        structure="diagonal" if similarity == "dynamic" else None,
    )
    network = build_model(description).double()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # Lines that fall, and statistics of their own.
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return convert(network, "static", structure="unconstrained") if similarity == "static" else network


def _results(network: TaskNetwork, images: Tensor, start: Parameters) -> list[Tensor]:
    """Features, gradients, and gradients of those."""
    parameters = {name: value.clone().requires_grad_() for name, value in start.items()}
    features = network.features(parameters, network.prepare(images))
    first = torch.autograd.grad(features.square().sum(), list(parameters.values()), create_graph=True)
    weights = torch.Generator().manual_seed(3)
    product = torch.stack([(part * torch.randn(part.shape, generator=weights, dtype=part.dtype)).sum() for part in first]).sum()
    second = torch.autograd.grad(product, list(parameters.values()), materialize_grads=True)
    return [features, *first, *second]


@pytest.mark.parametrize("backbone", list(BACKBONES))
@pytest.mark.parametrize("similarity", ["plain", "static", "dynamic"])
def test_which_networks_can_be_grouped(backbone: str, similarity: str) -> None:
    network = _build(backbone, similarity)
    expected = backbone in GROUPED and similarity != "dynamic"
    assert can_be_grouped(network) is can_be_grouped(with_first_statistics(with_batch_statistics(network), 2)) is expected


@pytest.mark.parametrize("backbone", GROUPED)
@pytest.mark.parametrize("statistics", ["running", "batch", "first", "first are all"])
@pytest.mark.parametrize("moving", ["all", "some", "M"])
def test_grouped_is_looped_to_the_second_derivative(kernels: Kernels, backbone: str, statistics: str, moving: str) -> None:
    network = _build(backbone, "static" if moving == "M" else "plain").eval()
    if statistics != "running":
        network = with_batch_statistics(network)
    if statistics.startswith("first"):
        network = with_first_statistics(network, 3 if statistics == "first are all" else 2)
    names = [name for name, _ in network.named_parameters()]
    chosen = {"all": names, "some": names[::2], "M": [name for name in names if name.endswith(".M")]}[moving]
    random = torch.Generator().manual_seed(1)
    start = {
        name: value.detach() + 0.1 * torch.randn(TASKS, *value.shape, generator=random, dtype=value.dtype)
        for name, value in network.named_parameters()
        if name in chosen
    }
    side = 32 if backbone == "plain-imagenet" else 16
    images = torch.randint(256, (TASKS, 3, 3, side, side), generator=random, dtype=torch.uint8)
    expected = _results(LoopedNetwork(network), images, start)
    found = _results(GroupedNetwork(network, kernels), images, start)
    for mine, theirs in zip(found, expected, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9 * max(scale, 1.0), check_stride=False)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.BatchNorm2d(2, affine=False),
        nn.GroupNorm(1, 2),
        StaticSimilarityConv2d(2, 2, 3, shape_threshold=0.5),
    ],
)
def test_layers_that_are_not_known_are_left_to_the_loop(layer: nn.Module) -> None:
    assert not can_be_grouped(nn.Sequential(nn.Conv2d(2, 2, 3), layer))
    assert can_be_grouped(nn.Sequential(nn.Conv2d(2, 2, 3)))


def test_what_was_prepared_is_not_kept_alive() -> None:
    network = GroupedNetwork(with_batch_statistics(_build("cnn4")), PlainKernels())
    stage = next(module for module in network._body.modules() if hasattr(module, "_patches"))
    for _ in range(3):
        network.features({}, network.prepare(torch.zeros(TASKS, 2, 3, 16, 16, dtype=torch.uint8)))
    assert len(stage._patches) == 0  # type: ignore[arg-type]
