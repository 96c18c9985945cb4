"""A connection to a PACS, by the protocol that its address names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pellucid.data.pacs.address import Access, Address, parse_address
from pellucid.data.pacs.entries import Pacs


@contextlib.contextmanager
def connect(address: Address | str, access: Access | None = None) -> Iterator[Pacs]:
    """A PACS to be asked within the block; nothing is sent before something is asked.

    Arguments:
        address: such as "https://pacs/dicom-web" (DICOMweb) or "dicom://AETITLE@pacs:104" (DIMSE).
        access: credentials, certificates and patience; None for an open PACS.

    Raises:
        InputError: an address that can't be one.
    """
    where = parse_address(address) if isinstance(address, str) else address
    access = access or Access()
    pacs: Pacs
    if where.kind == "dicomweb":
        from pellucid.data.pacs.dicomweb import DicomWeb

        pacs = DicomWeb(where, access)
    else:
        from pellucid.data.pacs.dimse import Dimse

        pacs = Dimse(where, access)
    with contextlib.closing(pacs):
        yield pacs
