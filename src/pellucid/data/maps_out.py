"""Maps as NIfTI and NRRD files that open over the image that was explained."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from pellucid.data.images import MedicalImage
from pellucid.data.nifti import encode_nifti, geometry_from, geometry_of, is_nifti
from pellucid.data.nrrd import encode_nrrd
from pellucid.errors import expected
from pellucid.files import written_whole

MAP_ENDINGS = (".nii.gz", ".nrrd")


def write_map(path: Path, values: np.ndarray, image: MedicalImage, label: str = "") -> None:
    """Write the values of a map where the image's pixels lie, as NIfTI or NRRD by the path's ending.

    A map of a NIfTI, NRRD or MetaImage volume has that file's axes, and of a NIfTI its header's geometry as it is. One
    of DICOM has columns first, rows, then slices, as ITK and others give it. Its affine is the image's: in a NIfTI as
    the sform, and as the qform too where that can tell it, which it can't of slices that lie askew (a tilted gantry).
    A picture's map has the size of pixels where that is known, and no place.

    Arguments:
        path: ends in .nii.gz or .nrrd; it appears whole or not at all.
        values: (D, H, W) or (H, W), or with axes before them, such as classes, which are kept one after another.
        image: as read, of the shape of the values' last axes.
        label: what the values are.

    Raises:
        InputError: another ending, or values of another shape.
        UnreadableFileError: the image's own file, of which the geometry is taken, can't be read any more.
        StorageError: the file can't be written.
    """
    if not path.name.endswith(MAP_ENDINGS):
        raise expected("path", f"a name that ends in {' or '.join(MAP_ENDINGS)}", path.name)
    shape = image.pixels.shape[1:]
    array = np.asarray(values, np.float32)
    if array.shape[array.ndim - len(shape) :] != shape:
        raise expected("values", f"the image's shape {shape} in the last axes", array.shape)
    array = array.reshape(-1, *shape)
    stored = image.affine is not None and not image.files
    order = list(range(len(shape))) if stored else list(range(len(shape)))[::-1]
    array = np.moveaxis(array.transpose(0, *(1 + axis for axis in order)), 0, -1)
    array = array[..., 0] if array.shape[-1] == 1 else array
    affine = None if image.affine is None else image.affine[:, [*order, 3]]
    spacing = () if image.spacing is None else tuple(image.spacing[axis] for axis in order)
    if path.name.endswith(".nrrd"):
        data = encode_nrrd(array, affine, spacing if affine is None else (), label)
    else:
        array = array if affine is not None else np.expand_dims(array, 2)  # a picture is one slice
        header: nibabel.Nifti1Header = (
            geometry_of(image.source) if stored and _is_nifti(image.source) else geometry_from(affine, spacing)
        )
        data = encode_nifti(array, header, label)
    with written_whole(path) as aside:
        aside.write_bytes(data)


def _is_nifti(path: Path) -> bool:
    """Whether the image's file is a NIfTI, which is told by its content."""
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return is_nifti(handle.read(2**16), path.name)
