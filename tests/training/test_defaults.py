"""What a family is trained with where the user doesn't say."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pellucid.torchvision_schemas  # isort: skip  # before timm, which imports torchvision
import timm

from pellucid.data.phantoms import draw_phantom
from pellucid.models.checkpoints import ModelCard
from pellucid.training.defaults import FROM_SCRATCH, PRETRAINED, family_of, resolved, taken_by_default
from pellucid.training.fit import fit
from pellucid.training.settings import TrainingSettings

assert pellucid.torchvision_schemas


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("resnet50", "resnet"),
        ("resnet50.a1_in1k", "resnet"),
        ("seresnet50", "resnet"),
        ("resnet18-3d", "resnet"),
        ("densenet121", "densenet"),
        ("vgg16", "vgg"),
        ("vgg16_bn", "vgg-bn"),
        ("efficientnet_b0", "efficientnet"),
        ("efficientnet-b0-3d", "efficientnet"),
        ("mobilenetv2_100", "mobilenet"),
        ("mobilenetv3_small_100", "mobilenet"),
        ("vit_tiny_patch16_224", "vit"),
        ("deit_tiny_patch16_224", "vit"),
        ("swin_tiny_patch4_window7_224", "swin"),
        ("swinv2_tiny_window8_256", "swin"),
        ("convnextv2_tiny", "convnext"),
        ("hrnet_w18", "other"),
        ("none of these", "other"),
    ],
)
def test_families(name: str, family: str) -> None:
    assert family_of(name) == family


def test_every_family_has_both_and_pretrained_weights_are_moved_less() -> None:
    assert FROM_SCRATCH.keys() == PRETRAINED.keys()
    for family, trained in PRETRAINED.items():
        assert trained.learning_rate < FROM_SCRATCH[family].learning_rate
        assert trained.layer_decay < 1
        assert trained.freeze_epochs >= 1


def test_what_the_user_says_stands_and_nothing_is_left_open() -> None:
    given = TrainingSettings(learning_rate=0.5, optimiser="sgd", epochs=1)
    full = resolved(given, "vit_tiny_patch16_224", pretrained=True)
    assert (full.learning_rate, full.optimiser, full.epochs) == (0.5, "sgd", 1)
    assert None not in full.model_dump().values()
    assert full.freeze_epochs == 0  # or nothing but the head would ever be trained
    assert resolved(full, "resnet50", pretrained=False) == full
    assert set(taken_by_default(given)) == {"weight_decay", "freeze_epochs", "layer_decay", "gradient_clip"}
    assert taken_by_default(full) == ()
    assert resolved(TrainingSettings(), "resnet50", pretrained=True).freeze_epochs == 1


def test_sgd_takes_a_higher_rate_and_less_decay_than_adamw() -> None:
    for pretrained in (True, False):
        adamw, sgd = (
            resolved(TrainingSettings(optimiser=name), "resnet50", pretrained=pretrained) for name in ("adamw", "sgd")
        )
        assert sgd.learning_rate == pytest.approx(10 * adamw.learning_rate)
        assert (adamw.weight_decay, sgd.weight_decay) == (0.01, 5e-4)
    given = TrainingSettings(optimiser="sgd", learning_rate=0.3, weight_decay=0.1)
    assert resolved(given, "resnet50", pretrained=False).learning_rate == 0.3
    assert resolved(given, "resnet50", pretrained=False).weight_decay == 0.1


@pytest.mark.slow
def test_a_vgg_without_norms_learns_from_random_weights(tmp_path) -> None:
    """At a rate that suits a ResNet it stays at chance. Few steps: a narrow head, a quarter of the images."""
    count, size = 128, 64
    drawn = [draw_phantom("chest", index, size=size, seed=0) for index in range(2 * count)]
    classes = tuple(sorted({each.label for each in drawn}))
    images = torch.stack([torch.from_numpy(each.image).float() for each in drawn]).unsqueeze(1)
    images = (images - images[:count].mean()) / images[:count].std()
    labels = torch.tensor([classes.index(each.label) for each in drawn])
    rows = torch.arange(2 * count)
    train, test = (
        DataLoader(TensorDataset(images[part], labels[part], rows[part]), batch_size=16)
        for part in (slice(count), slice(count, None))
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: nn.Module = timm.create_model("vgg11", num_classes=len(classes), in_chans=1, mlp_ratio=0.0625)
    card = ModelCard("vgg11", size, 1, classes, (0.0,), (1.0,), "data-set")
    fitted = fit(network, train, test, folder=tmp_path, card=card, settings=TrainingSettings(epochs=6))
    assert fitted.settings.learning_rate == FROM_SCRATCH["vgg"].learning_rate
    chance = float(torch.bincount(labels[count:]).max()) / count
    assert fitted.history["val_accuracy"].max() > chance + 0.15
