"""Built-in phantoms: generated classification tasks with known lesions, drawn from a seed."""

from pellucid.data.phantoms.draw import TASKS, draw_phantom
from pellucid.data.phantoms.sample import Phantom, PhantomSample
from pellucid.data.phantoms.write import write_phantoms

__all__ = ["TASKS", "Phantom", "PhantomSample", "draw_phantom", "write_phantoms"]
