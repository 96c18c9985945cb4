"""Networks: the zoo, their layers, and their weights on disk."""

from pellucid import torchvision_schemas as torchvision_schemas  # before timm, which imports torchvision
