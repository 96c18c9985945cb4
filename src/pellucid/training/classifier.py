"""The network as Lightning trains it."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import PellucidError
from pellucid.training.settings import TrainingSettings

Item = tuple[Tensor, int, int]  # image (C, H, W), label, position
Batch = tuple[Tensor, Tensor, Tensor]  # images (B, C, H, W), labels (B,), positions (B,)


class Classifier(lightning.LightningModule):
    """Cross-entropy training of `network`; every draw is seeded by the step, so that a resumed run repeats it."""

    class_weights: Tensor | None

    def __init__(
        self, network: nn.Module, settings: TrainingSettings, class_weights: Tensor | None, seed: int, steps: int
    ) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.seed = seed
        self.steps = steps
        # kept out of the state: they belong to the data, not to the network
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.validation: list[tuple[Tensor, Tensor]] = []
        self.losses: list[Tensor] = []

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            _decayed_apart(self.network, self.settings.weight_decay), lr=self.settings.learning_rate
        )
        warmup = max(1, round(self.settings.warmup * self.steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels, _ = batch
        logits = self.network(images.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(
            logits, labels, self.class_weights, label_smoothing=self.settings.label_smoothing
        )
        if not torch.isfinite(loss):
            raise PellucidError(
                f"training diverged in epoch {self.current_epoch + 1}: the loss is {float(loss.detach())}. "
                f"Lower learning_rate (it is {self.settings.learning_rate:g})."
            )
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels, _ = batch
        logits = self.network(images.contiguous(memory_format=torch.channels_last))
        self.validation.append((logits.float(), labels))

    def train_loss(self) -> float:
        """Mean loss of the epoch's batches; forgets them."""
        loss = float(torch.stack(self.losses).mean())
        self.losses.clear()
        return loss

    def validation_scores(self) -> tuple[float, float]:
        """Mean cross-entropy and accuracy on the validation split; forgets the batches."""
        logits = torch.cat([logits for logits, _ in self.validation])
        labels = torch.cat([labels for _, labels in self.validation])
        self.validation.clear()
        loss = functional.cross_entropy(logits, labels, self.class_weights)
        return float(loss), float((logits.argmax(dim=1) == labels).float().mean())


def _decayed_apart(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay weights but not biases and norm scales, which have one dimension."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
