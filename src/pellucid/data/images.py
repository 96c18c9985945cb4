"""Read one image: pixels as stored, and what is known of them."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image, UnidentifiedImageError

from pellucid.data.dicom.headers import DICOM_ENDINGS, NOT_DICOM, is_dicom
from pellucid.data.dicom.read import decode_dicom
from pellucid.data.itk import decode_itk, is_itk
from pellucid.data.medical_image import MedicalImage as MedicalImage
from pellucid.data.nifti import decode_nifti, is_nifti
from pellucid.data.tiff import decode_tiff
from pellucid.data.whole import DecodeError, check_bmp, check_jpeg, check_png
from pellucid.errors import UnreadableFileError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib")
OTHER_IMAGE_ENDINGS = (
    ".dcm", ".dicom", ".ima", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".gif", ".webp", ".jp2", ".j2k", ".heic",
)  # fmt: skip
READ = "PNG, JPEG, TIFF, BMP, DICOM, NIfTI, NRRD and MetaImage are read"
PICTURES = "PNG, JPEG, TIFF, BMP and DICOM pictures are taken"

_ORIENTATION_TAG = 274
_QUOTED = re.compile("['\"{]")  # from here on a decoder quotes the file, which may hold a name
_PLAIN_MODES = ("L", "RGB", "F", "I")

# what Pillow, tifffile and imagecodecs raise on damaged files, as fuzzing showed
_DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: str | Path, index: int | None = None) -> MedicalImage:
    """Read a picture or a volume; the format is told by the content, not by the ending.

    Taken are PNG, JPEG, TIFF, BMP, DICOM, NIfTI, NRRD and MetaImage files, a folder that holds one DICOM series, and
    `FOLDER/#NAME` for one of several.

    Grey stays grey (1, H, W) and colour RGB (3, H, W), in the stored type: 8 and 16 bits, for TIFF also signed, 32
    bits and float. One bit becomes 0 and 255, a palette and CMYK become RGB, alpha is dropped, the EXIF
    orientation is applied. A TIFF must hold one picture.

    A NIfTI volume (.nii, .nii.gz) is (1, D, H, W) with its axes as they are stored: voxel (i, j, k) of the file is
    `pixels[0, i, j, k]`, and `affine @ (i, j, k, 1)` is its place. It keeps the stored type; where the header has a
    slope and an intercept, they are applied, in float32 (float64 from 32 bits on). Of a file with several volumes
    `index` picks one. NRRD (.nrrd) and MetaImage (.mha, .mhd) are read in the same way.

    DICOM pixels are in the units of the file, after its modality LUT (PS3.3, C.11.1); colour and palettes become RGB.
    They keep the stored type where nothing changes them; else int16 where slope, intercept and all results allow it,
    or float32 (float64 where more than 16 bits are stored). PET in Bq/ml becomes the uptake value where the file says
    what that takes. A series is (1, D, H, W): slices along their normal, rows, columns. Of a file of many frames
    `index` picks one; without it, it is a volume if it says where they lie.

    Raises UnreadableFileError that names the file and the reason when it is missing, empty, truncated, damaged,
    of another format, larger than 67,108,864 pixels or 536,870,912 voxels, when it holds values that are not finite,
    or several volumes and no index.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (4, 3)).save(Path(folder) / "a.png")
    ...     read_image(Path(folder) / "a.png").pixels.shape
    (3, 3, 4)
    """
    path = Path(path)
    try:
        with quiet_decoders():
            return decode_file(path, index, volumes=True)
    except DecodeError as error:
        raise UnreadableFileError(f"can't read {path}: {error}.") from error


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Hold back the decoders' warnings, which name no file; enter it before threads start, never within one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode_file(path: Path, index: int | None = None, *, volumes: bool = False) -> MedicalImage:
    """As `read_image`, for use in threads: raises DecodeError with the reason alone; volumes only where asked for."""
    from pellucid.data.dicom.series import decode_series, is_series_path  # which read files by this function

    if is_series_path(path) or is_itk(path):
        image = decode_series(path, index) if is_series_path(path) else decode_itk(path, index)
        if image.affine is not None and not volumes:
            raise DecodeError(f"a volume of {' × '.join(map(str, image.pixels.shape[1:]))} voxels; {PICTURES}")
        _check_finite(image.pixels)
        return image
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
    except ValueError as error:  # a NUL in the name
        raise DecodeError(str(error)) from error
    try:
        if is_dicom(data):
            image = decode_dicom(data, path, index)
            if image.affine is not None and not volumes:
                raise DecodeError(f"a DICOM file of {len(image.pixels[0])} slices; {PICTURES}")
            _check_finite(image.pixels)
            return image
        if volumes and data and is_nifti(data, path.name):
            volume = decode_nifti(data, index)
            _check_finite(volume.pixels)
            return MedicalImage(volume.pixels, volume.spacing, None, None, path, volume.affine)
        if index not in (None, 0):
            raise DecodeError(f"a picture, so that there is none with index {index}")
        pixels, orientation = _decode(data, path.name)
        _check_finite(pixels)
    except (DecodeError, *_DECODER_ERRORS) as error:
        raise DecodeError(_reason(error)) from error
    return MedicalImage(oriented(pixels, orientation), None, None, None, path)


def _check_finite(pixels: np.ndarray) -> None:
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise DecodeError(f"{np.count_nonzero(~np.isfinite(pixels))} values are NaN or infinite")


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (C, H, W) turned upright; `orientation` from 1 to 8 as EXIF defines it, anything else leaves them."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(1, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels)


def _decode(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """Pixels (C, H, W) and the orientation tag."""
    if not data:
        raise DecodeError("the file is empty")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        header = check_png(data)
        if header.depth == 16:  # Pillow would keep 8 bits of colour
            exif = Image.Exif()
            exif.load(header.exif)
            return _channels_first(imagecodecs.png_decode(data)), _orientation(exif)
        return _through_pillow(data, "PNG")
    if data.startswith(b"\xff\xd8"):
        check_jpeg(data)
        return _through_pillow(data, "JPEG")
    if data.startswith(b"BM"):
        check_bmp(data)
        return _through_pillow(data, "BMP")
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return decode_tiff(data)
    if is_nifti(data, name):
        raise DecodeError(f"a NIfTI file; {PICTURES}")
    if name.lower().endswith(DICOM_ENDINGS):
        raise DecodeError(NOT_DICOM)
    if name.lower().endswith((".mgz", ".mgh")):
        raise DecodeError("a FreeSurfer volume, which isn't read; save it as NIfTI")
    raise DecodeError(f"not an image of a known format; {READ}")


def _through_pillow(data: bytes, kind: str) -> tuple[np.ndarray, int]:
    with Image.open(io.BytesIO(data), formats=(kind,)) as image:
        image.load()
        orientation = _orientation(image.getexif())
        if image.mode in ("1", "LA", "La"):
            return _channels_first(np.asarray(image.convert("L"))), orientation
        if image.mode not in _PLAIN_MODES and not image.mode.startswith("I;16"):
            return _channels_first(np.asarray(image.convert("RGB"))), orientation
        return _channels_first(np.asarray(image)), orientation


def _orientation(exif: Image.Exif) -> int:
    value = exif.get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 2) or (H, W, 3 or 4) as (C, H, W), without alpha."""
    if pixels.ndim == 2:
        return pixels[None].astype(pixels.dtype.newbyteorder("="))
    return np.moveaxis(pixels[..., : 1 if pixels.shape[2] == 2 else 3], -1, 0)


def _reason(error: BaseException) -> str:
    """One line for the user; decoders' own words where they say anything."""
    if isinstance(error, UnidentifiedImageError):  # names an object in memory
        return "the header is damaged"
    if isinstance(error, DecodeError):
        return str(error)
    if isinstance(error, MemoryError):
        return "it doesn't fit into memory"
    first = (str(error).splitlines() or [""])[0]
    first = _QUOTED.split(first)[0].strip(" .:(")
    telling = isinstance(error, (OSError, RuntimeError, SyntaxError, ValueError)) and first
    return f"the picture is damaged ({first})" if telling else "the picture is damaged"
