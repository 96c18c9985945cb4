"""Speak to a PACS: find studies, fetch them, store files; by DICOMweb or by DIMSE, as its address says."""

from pellucid.data.pacs.address import Access, Address, credentials, parse_address, parse_listen
from pellucid.data.pacs.connect import connect
from pellucid.data.pacs.entries import InstanceEntry, Outcome, Pacs, Query, StudyEntry
from pellucid.data.pacs.errors import (
    NotInPacsError,
    PacsBrokenError,
    PacsError,
    PacsRefusedError,
    PacsUnreachableError,
)
from pellucid.data.pacs.transfer import Fetched, failures, fetch_study, find_studies, store_files, study_folder

__all__ = [
    "Access",
    "Address",
    "Fetched",
    "InstanceEntry",
    "NotInPacsError",
    "Outcome",
    "Pacs",
    "PacsBrokenError",
    "PacsError",
    "PacsRefusedError",
    "PacsUnreachableError",
    "Query",
    "StudyEntry",
    "connect",
    "credentials",
    "failures",
    "fetch_study",
    "find_studies",
    "parse_address",
    "parse_listen",
    "store_files",
    "study_folder",
]
