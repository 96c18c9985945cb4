"""Images in and out: reading, manifests, splits, copies, transforms, data sets, phantoms."""
