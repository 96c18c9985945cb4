"""The network as Lightning trains it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.models.layout import channels_last
from pellucid.training.diverged import where_it_began
from pellucid.training.mixing import Mix, binary_cross_entropy, cross_entropy, mixer
from pellucid.training.optimisation import freeze, make_optimiser, rate_factor
from pellucid.training.settings import TrainingSettings

Item = tuple[Tensor, int | Tensor, int]  # image (C, *S), label or labels (K,), position
Batch = tuple[Tensor, Tensor, Tensor]  # images (B, C, *S), labels (B,) or (B, K), positions (B,)


class Classifier(lightning.LightningModule):
    """Cross-entropy training of `network`; every draw is seeded by the step, so that a resumed run repeats it.

    Arguments:
        network: what is trained.
        settings: with nothing left open, as `resolved` gives them.
        learning_rate: the highest rate of the last layers.
        classes: how many there are, K.
        class_weights: (K,), or None where all classes count alike.
        seed: all draws follow from it.
        epoch_steps: steps of an epoch.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        settings: TrainingSettings,
        learning_rate: float,
        classes: int,
        class_weights: Tensor | None,
        seed: int,
        epoch_steps: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.learning_rate = learning_rate
        self.classes = classes
        self.seed = seed
        self.epoch_steps = epoch_steps
        self.average: ModelEmaV3 | None = None  # a part of the module, so that a resumed run has it
        if settings.ema:
            self.average = ModelEmaV3(network, decay=settings.ema, use_warmup=True).requires_grad_(False)
            # it draws for bfloat16 weights alone, and can't be sent to another process
            self.average._sr_generator = None  # type: ignore[assignment]
        # kept out of the state: they belong to the data, not to the network
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.names: Sequence[str] | None = None  # of the training images, for messages
        self.multi_label = False  # whether labels (B, K) of 0 and 1 are learnt, each by itself
        self.frozen = False
        self._mix: Mix | None = None
        self._trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._batch: Batch | None = None
        self._validation: list[tuple[Tensor, Tensor, Tensor]] = []
        self._losses: list[Tensor] = []

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and saved: the moving average where there is one."""
        return self.network if self.average is None else self.average.module

    def setup(self, stage: str) -> None:
        self._mix = mixer(self.settings.mixup, self.settings.cutmix, self.classes)

    def configure_optimizers(self) -> Any:
        optimiser = make_optimiser(self.network, self.settings, self.learning_rate)
        epochs, frozen = self.settings.epochs or 1, self.settings.freeze_epochs or 0
        factor = rate_factor(self.settings, epochs * self.epoch_steps, frozen * self.epoch_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        self.frozen = self.current_epoch < (self.settings.freeze_epochs or 0)
        freeze(self.network, self._trained, but_head=self.frozen)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._seed_step()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self._batch = batch
        images, target = self._fed(batch)
        loss = self._loss(self.network(images), target, self.settings.label_smoothing)
        self._losses.append(loss.detach())
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Refuse to take a step from a loss that isn't finite; here, so that the device has its work in hand."""
        if not torch.isfinite(self._losses[-1]):
            raise PellucidError(self._diverged())

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self._batch = None
        if self.average is not None:
            self.average.update(self.network, step=self.global_step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels, positions = batch
        self._validation.append((self.kept(channels_last(images)).float(), labels, positions))

    def train_loss(self) -> float:
        """Mean loss of the epoch's batches on all devices; forgets them."""
        losses = self._gathered([torch.stack(self._losses)])
        self._losses.clear()
        return float(losses.mean())

    def validation_scores(self) -> tuple[float, float]:
        """Mean cross-entropy and accuracy (of labels, where an image may have several) on the validation split.

        Forgets the batches.
        """
        logits, labels, positions = (self._gathered(part) for part in zip(*self._validation, strict=True))
        self._validation.clear()
        # in the order of positions, each once: however many devices there were, the sums are the same
        _, first = np.unique(positions.cpu().numpy(), return_index=True)
        logits, labels = logits[first], labels[first]
        right = (logits > 0) == (labels > 0) if self.multi_label else logits.argmax(dim=1) == labels
        return float(self._loss(logits, labels)), float(right.float().mean())

    def _loss(self, logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        entropy = binary_cross_entropy if self.multi_label else cross_entropy
        return entropy(logits, target, self.class_weights, smoothing)

    def _gathered(self, parts: Sequence[Tensor]) -> Tensor:
        """The batches (B, ...) of all devices in one."""
        joined = torch.cat(list(parts))
        everyone = self.all_gather(joined)
        assert isinstance(everyone, Tensor)
        return everyone.flatten(0, 1) if everyone.ndim > joined.ndim else everyone

    def _fed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the network is given, and the labels (B,) or shares of classes (B, K) that it is held against."""
        images, labels, _ = batch
        if self._mix is not None:
            images, labels = self._mix(images, labels)
        return channels_last(images), labels

    def _seed_step(self) -> None:
        """Begin the step's draws, which are other ones on each device."""
        torch.manual_seed(self.seed * 1_000_003 + self.global_step + self.global_rank * 2**40)

    def _diverged(self) -> str:
        assert self._batch is not None
        images, _, positions = self._batch
        names = [str(place) for place in positions.tolist()]
        names = [f"image {name}" for name in names] if self.names is None else [self.names[int(n)] for n in names]
        self._seed_step()
        with self.trainer.precision_plugin.forward_context():
            began = where_it_began(self.network, images, names)
        return (
            f"training diverged in epoch {self.current_epoch + 1}, batch {len(self._losses)}: the loss is "
            f"{float(self._losses[-1])}. {began} Lower learning_rate (it is {self.learning_rate:g})"
        )
