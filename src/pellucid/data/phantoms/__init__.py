"""Built-in phantoms: generated classification tasks with known lesions, drawn from a seed."""

from pellucid.data.phantoms.ct import NAME as CT_TASK
from pellucid.data.phantoms.ct import VolumeSample, draw_volume
from pellucid.data.phantoms.draw import TASKS, draw_phantom
from pellucid.data.phantoms.sample import Phantom, PhantomSample
from pellucid.data.phantoms.write import write_phantoms
from pellucid.data.phantoms.write_volumes import write_volumes

VOLUME_TASKS = (CT_TASK,)
"""Built-in tasks whose images are volumes."""

__all__ = [
    "TASKS", "VOLUME_TASKS", "Phantom", "PhantomSample", "VolumeSample", "draw_phantom", "draw_volume",
    "write_phantoms", "write_volumes",
]  # fmt: skip
