"""Every file that pydicom ships and every one of the shared pack: read as GDCM and dcmtk read it, or refused.

The table of files and outcomes is printed: pytest -s tests/data/dicom/test_corpus.py
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut

from dicom_files import peers
from pellucid.data.images import read_image
from pellucid.data.intensity import grey_of
from pellucid.data.medical_image import MedicalImage
from pellucid.errors import UnreadableFileError

PYDICOM = Path(pydicom.__file__).parent / "data"
LOSSY = ("4.50", "4.51", "4.81", "4.91", "4.203")  # within one level


@dataclass
class Row:
    """A file and what came of it."""

    name: str
    syntax: str = ""
    said: str = ""
    gdcm: str = ""
    dcmtk: str = ""
    drawn: str = ""
    images: list[MedicalImage] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name:42} {self.syntax:7} {self.said[:64]:64} {self.gdcm:20} {self.dcmtk:20} {self.drawn}"


def modulo(bits: int) -> Callable[[np.ndarray, np.ndarray], bool]:
    return lambda ours, theirs: bool(((ours - theirs) % 2**bits == 0).all())


def words_swapped(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether they are ours with the two halves of 32 bits changed; both are scaled by 1e-6."""
    stored, other = (np.rint(each * 1e6).astype(np.uint32) for each in (ours, theirs))
    return bool((other == (stored << 16 | stored >> 16)).all())


def misplaced(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return not np.array_equal(ours, theirs)


# where a peer is the one in error: which, why, and what would make it right
MISTAKEN: dict[tuple[str, str], tuple[str, Callable[[np.ndarray, np.ndarray], bool]]] = {
    ("GDCM", "J2K_pixelrep_mismatch.dcm"): ("doesn't extend the sign of 13 bits", modulo(13)),
    ("GDCM", "JLSL_16_15_1_1F.dcm"): ("doesn't extend the sign of 15 bits; dcmtk does", modulo(15)),
    **{
        ("GDCM", f"SC_rgb_rle_{bits}bit{end}.dcm"): ("misplaces bytes of colours; dcmtk doesn't", misplaced)
        for bits in (16, 32)
        for end in ("", "_2frame")
    },
    **{
        (peer, f"rtdose_expb{end}.dcm"): (
            "changes the words of 32 bits; rtdose.dcm is the same dose",
            words_swapped,
        )
        for peer in ("GDCM", "dcmtk")
        for end in ("", "_1frame")
    },
}
SAME = {  # files that no peer decodes as it should be, and others that hold the same
    "liver_deflate.dcm": "liver.dcm",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "emri_small_RLE.dcm",  # all it lacks is the mark of its end
    "rtdose_expb.dcm": "rtdose.dcm",
    "rtdose_expb_1frame.dcm": "rtdose_1frame.dcm",
}


def outcome(path: Path) -> Row:
    row = Row(path.name)
    try:
        row.images = [read_image(path)]
        frames = 1 if row.images[0].affine is None else row.images[0].pixels.shape[1]
    except UnreadableFileError as error:
        told = str(error).removeprefix(f"can't read {path}: ")
        assert "\n" not in told
        frames = int(told.split(" ")[3]) if "index=" in told else 0
        row.said = "" if frames else told
    if frames:
        row.images += [read_image(path, place) for place in range(frames)] if frames > 1 else row.images
    if row.images:
        first = row.images[0]
        row.said = f"{' × '.join(map(str, first.pixels.shape))} {first.pixels.dtype}{' of ' * (frames > 1)}"
        row.said += f"{frames} frames" * (frames > 1)
    return row


def compared(row: Row, peer: str, found: peers.Peer, header: pydicom.Dataset) -> str:
    """How far a peer's values are from ours, frame by frame; a mistake of the peer is looked up and checked."""
    if found.values is None:
        return found.reason
    frames = row.images[-len(found.values) :]
    theirs = peers.after_modality(found.values, header).astype(float)
    ours = np.stack([image.pixels for image in frames]).astype(float)
    if found.values.dtype == np.uint16 and frames[0].pixels.dtype == np.uint8:  # a palette of 8 bits, written as 16
        theirs /= 256
    assert ours.shape == theirs.shape, row.name
    far = float(np.abs(ours - theirs).max())
    allowed = 1.0 if row.syntax in LOSSY else 1e-6 * max(1.0, float(np.abs(ours).max())) * (ours % 1 != 0).any()
    if (peer, row.name) in MISTAKEN:
        _, right = MISTAKEN[peer, row.name]
        assert far > allowed, row.name
        assert right(ours, theirs), row.name
        return f"wrong by {far:.6g}"
    assert far <= allowed, (row.name, peer, far)
    return "equal" if far == 0 else f"within {far:.2g}"


def drawn(row: Row, path: Path, folder: Path) -> str:
    """Whether dcmtk draws a grey picture through the file's own window as we do, to one of 255 levels."""
    image = row.images[0]
    if not image.windows or len(row.images) > 2 or image.affine is not None:
        return ""
    option = "+Wi" if image.windows[0].table is None else "+Wl"
    theirs = peers.greys_by_dcmtk(path, folder, "-O", option, "1")
    if theirs is None:
        return ""
    assert np.abs(grey_of(image)[0] * 255 - theirs.astype(float)).max() <= 1, row.name
    return "drawn alike"


def table_of(files: list[Path], folder: Path) -> list[Row]:
    rows = [outcome(path) for path in files]
    by_gdcm = dict(zip(files, peers.by_gdcm(files, folder / "gdcm"), strict=True))
    for path, row in zip(files, rows, strict=True):
        if not row.images:
            reads = by_gdcm[path].values is not None
            row.gdcm = f"reads {by_gdcm[path].values.shape[2:]}" if reads else by_gdcm[path].reason  # type: ignore[union-attr]
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
            stated = str(header.file_meta.get("TransferSyntaxUID", "none"))
            row.syntax = stated.removeprefix("1.2.840.10008.1.2").strip(".") or "0"
            row.gdcm = compared(row, "GDCM", by_gdcm[path], header)
            row.dcmtk = compared(row, "dcmtk", peers.by_dcmtk(path, folder), header)
            row.drawn = drawn(row, path, folder)
    return rows


def show(title: str, rows: list[Row]) -> None:
    print(f"\n{title}\n{Row('file', 'syntax', 'read, or refused', 'GDCM', 'dcmtk', 'window')}")  # noqa: T201
    for row in rows:
        print(row)  # noqa: T201
    for (peer, name), (why, _) in MISTAKEN.items():
        for row in rows:
            if row.name == name:
                print(f"{name}: {peer} {why} ({row.gdcm if peer == 'GDCM' else row.dcmtk})")  # noqa: T201
    print(dict(counts(rows)))  # noqa: T201


def counts(rows: list[Row]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        found["read" if row.images else "refused"] += 1
        if row.images:
            agreed = [peer for peer in (row.gdcm, row.dcmtk) if peer.startswith(("equal", "within"))]
            found[f"{len(agreed)} peers agree"] += 1
            found["drawn alike"] += bool(row.drawn)
    return found


def check_those_without_a_peer(files: list[Path], rows: list[Row]) -> None:
    by_name = {row.name: row for row in rows}
    for path, row in zip(files, rows, strict=True):
        if not row.images or any(said.startswith(("equal", "within")) for said in (row.gdcm, row.dcmtk)):
            continue
        if row.name in SAME:
            for one, another in zip(row.images, by_name[SAME[row.name]].images, strict=True):
                np.testing.assert_array_equal(one.pixels, another.pixels)
        else:
            header = pydicom.dcmread(path, force=True)
            stored = header.pixel_array.reshape(row.images[-1].pixels.shape)
            np.testing.assert_array_equal(row.images[-1].pixels, apply_modality_lut(stored, header))


def check_counts(rows: list[Row], *, read: int, refused: int, by_both: int, by_neither: int, drawn: int) -> None:
    """How many files are read, refused, and agreed upon; other versions of the peers may read more of them."""
    found = counts(rows)
    assert (found["read"], found["refused"]) == (read, refused)
    assert found["2 peers agree"] >= by_both
    assert found["0 peers agree"] <= by_neither
    assert found["drawn alike"] >= drawn


def test_all_files_that_pydicom_ships(tmp_path: Path) -> None:
    others = (".txt", ".json", ".md", ".icc", ".dump", ".gz", ".py", ".pyc")
    files = sorted(path for path in PYDICOM.rglob("*") if path.is_file() and path.suffix not in others)
    rows = table_of(files, tmp_path)
    show("What pydicom ships", rows)
    check_those_without_a_peer(files, rows)
    check_counts(rows, read=102, refused=91, by_both=86, by_neither=3, drawn=38)


def test_all_files_of_the_shared_pack(shared_data: Path, tmp_path: Path) -> None:
    files = sorted(path for path in (shared_data / "dicom_nifti" / "dicom").rglob("*") if path.is_file())
    rows = table_of(files, tmp_path)
    show("The shared pack", rows)
    check_those_without_a_peer(files, rows)
    check_counts(rows, read=56, refused=2, by_both=43, by_neither=2, drawn=23)


def test_its_volumes_are_those_of_nibabel(shared_data: Path) -> None:
    said = {}
    for path in sorted((shared_data / "dicom_nifti" / "nifti").iterdir()):
        if path.suffix == ".mgz":
            said[path.name] = outcome(path).said
            continue
        voxels = np.asanyarray(nibabel.load(path).dataobj)
        voxels = voxels if voxels.ndim == 4 else voxels[..., None]
        for place in range(voxels.shape[3]):
            image = read_image(path, place)
            np.testing.assert_allclose(image.pixels[0], voxels[..., place], rtol=1e-6)
            np.testing.assert_allclose(image.affine, nibabel.load(path).affine)
        said[path.name] = f"{voxels.shape[3]} of {voxels.shape[:3]}, equal"
    print("", *(f"{name:42} {what}" for name, what in said.items()), sep="\n")  # noqa: T201
    assert len(said) == 5
    assert said["test.mgz"] == "a FreeSurfer volume, which isn't read; save it as NIfTI."


@pytest.mark.parametrize("name", ["rtdose_expb.dcm", "rtdose_expb_1frame.dcm"])
def test_a_dose_in_the_other_order_of_bytes_is_the_same_dose(name: str) -> None:
    one, other = (read_image(PYDICOM / "test_files" / each) for each in (name, SAME[name]))
    np.testing.assert_array_equal(one.pixels, other.pixels)
