"""Training a classifier and asking it: `fit` and `predict`."""

from pellucid import torchvision_schemas as torchvision_schemas  # before Lightning, which imports torchvision
