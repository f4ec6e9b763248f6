"""Those that build a model need timm; they are passed over where it is not installed."""

import sys
from types import ModuleType

import pytest
import torch

from fewshot_nsl.backbones import timm_backbone
from fewshot_nsl.errors import ConfigurationError

pytestmark = pytest.mark.filterwarnings("default")  # of what timm does when it is imported


@pytest.fixture
def timm() -> ModuleType:
    module: ModuleType = pytest.importorskip("timm")
    return module


@pytest.mark.parametrize(("name", "features"), [("resnet18", 512), ("mobilenetv3_small_050", 1024), ("vit_tiny_patch16_224", 192)])
def test_gives_the_features_before_the_classifier_of_images_as_the_model_wants_them(timm: ModuleType, name: str, features: int) -> None:
    torch.manual_seed(0)
    backbone = timm_backbone(name, pretrained=False)
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    images = torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        found, expected = backbone(images), model((images / 255 - mean) / std)
    assert found.shape == (2, features)
    assert backbone.features == features
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_small_and_grey_images_are_made_what_the_model_takes(timm: ModuleType) -> None:
    assert timm.is_model("resnet18")
    backbone = timm_backbone("resnet18", pretrained=False)
    assert backbone.image_size == 224
    with torch.no_grad():
        assert backbone(torch.zeros(3, 1, 28, 28, dtype=torch.uint8)).shape == (3, 512)


def test_an_unknown_name_is_refused_with_those_that_are_near(timm: ModuleType) -> None:
    assert not timm.is_model("resnet81")
    with pytest.raises(ConfigurationError, match=r"^timm has no model 'resnet81'; did you mean resnet.*\? See .*: timm\.list_models\(\)$"):
        timm_backbone("resnet81")


def test_without_timm_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigurationError, match=r"^backbone 'resnet18' is of timm, which is not installed; run: pip install timm$"):
        timm_backbone("resnet18")
