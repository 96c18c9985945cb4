"""What a network says of rows, in a precision, compiled or not, a few at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attribution.asking import cached_rows
from pellucid.attribution.engine import Precision, mixed
from pellucid.attribution.frozen import Frozen
from pellucid.attribution.layout import Casts
from pellucid.attribution.run import LayerRun, channels_checked, device_of
from pellucid.attribution.targets import class_logits
from pellucid.errors import expected
from pellucid.progress import Advance


class Network:
    """The readings of rows: the explained class's probability, its logit, and the index of the largest logit."""

    def __init__(
        self,
        model: nn.Module,
        batch_size: int,
        multi_label: bool,
        precision: Precision = "float32",
        compile: bool = False,
    ) -> None:
        self.model, self.batch_size, self.multi_label, self.precision = model, batch_size, multi_label, precision
        self.device = device_of(model)
        self._run = LayerRun(model, "", [], batch_size)
        self._frozen = Frozen(model, batch_size) if compile else None
        self._casts: Casts | None = None  # not made yet
        self._takes_casts = precision == "bfloat16" and self.device is not None and not compile

    @property
    def takes_layouts(self) -> bool:
        """Whether it runs faster on weights of another layout; compiled, it has copies of its own."""
        return self._frozen is None

    def compile(self, images: Tensor, advance: Advance) -> None:
        """Compile it for such images (M, C, *S), where that is asked for."""
        if self._frozen is None:
            return
        with torch.no_grad(), mixed(self.precision, self.device), channels_checked(self.model, images):
            if not self._frozen.knows(images):
                advance(0, "compiling the network")
                self._frozen.prepare(images)

    def logits(self, images: Tensor) -> Tensor:
        """Logits (M, n) of images (M, C, *S)."""
        return torch.cat([class_logits(part).float() for part in self._outputs(images)])

    def _outputs(self, images: Tensor) -> list[Any]:
        """What the network gives, a few images at a time."""
        parts = images.split(self.rows_at_once(images))
        with torch.no_grad(), mixed(self.precision, self.device):
            if self._frozen is not None:
                images = images.to(self.device or images.device)
                with channels_checked(self.model, images):
                    return [self._frozen(images)]
            if self._takes_casts:
                self._casts = self._casts or Casts(self.model, images)
                try:
                    with self._casts.held():
                        return [self._run.outputs(part) for part in parts]
                except RuntimeError:  # it takes its own weights alone, or this is a fault that comes again below
                    self._takes_casts, self._casts = False, None
            return [self._run.outputs(part) for part in parts]

    def rows_at_once(self, images: Tensor) -> int:
        """How many such images (M, C, *S) run at once."""
        with mixed(self.precision, self.device):
            return cached_rows(images, self.batch_size)

    def readings(self, images: Tensor, target: Tensor) -> Tensor:
        """Readings (M, 3) of images (M, C, *S) for the classes `target` (M,)."""
        outputs = self._outputs(images)
        logits = torch.cat([class_logits(part).float() for part in outputs])
        target = target.to(logits.device)
        if int(target.max()) >= logits.shape[1]:
            wanted = f"classes from 0 to {logits.shape[1] - 1}, as the model has"
            raise expected("explanation", wanted, int(target.max()), do="Pass the model that was explained.")
        single = isinstance(outputs[0], Tensor) and (outputs[0].ndim == 1 or outputs[0].shape[1] == 1)
        probabilities = logits.sigmoid() if single or self.multi_label else logits.softmax(dim=1)
        places = target.unsqueeze(1)
        largest = logits.argmax(dim=1, keepdim=True).to(logits)
        return torch.cat([probabilities.gather(1, places), logits.gather(1, places), largest], dim=1)
