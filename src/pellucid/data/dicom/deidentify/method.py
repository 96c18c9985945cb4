"""What a de-identified object says of it, and the header of its file."""

from __future__ import annotations

from importlib.metadata import version

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pellucid.data.dicom.deidentify.profile import Choices

IMPLEMENTATION_UID = UID("2.25.296494793451131413534591554665869835221")
_MODIFIED = {"remove": "REMOVED", "shift": "MODIFIED", "keep": "UNMODIFIED"}


def state_method(dataset: Dataset, choices: Choices) -> None:
    """Say that the patient's identity was removed and how (PS3.3, C.7.1.1 and C.12.1.1.9; PS3.16, CID 7050)."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = [f"pellucid {version('pellucid')}", "PS3.15 Annex E, Table E.1-1 of 2026c"]
    codes = []
    for code, meaning in choices.codes:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning
        codes.append(item)
    dataset.DeidentificationMethodCodeSequence = codes
    dataset.LongitudinalTemporalInformationModified = _MODIFIED[choices.dates]


def fresh_meta(dataset: Dataset) -> FileMetaDataset:
    """File meta information with nothing of the source but what its bytes mean (PS3.10, 7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax_of(dataset)
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = f"PELLUCID {version('pellucid')}"[:16]
    return meta


def syntax_of(dataset: Dataset) -> UID:
    """The transfer syntax, of a file without meta information as it was read."""
    stated = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    if stated:
        return UID(stated)
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
