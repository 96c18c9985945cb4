"""What the status of a DICOM operation means: one set of codes for C-STORE, C-FIND, C-GET, C-MOVE and STOW-RS."""

from __future__ import annotations

SUCCESS, CANCELLED, OUT_OF_RESOURCES = 0x0000, 0xFE00, 0xA700
PENDING = (0xFF00, 0xFF01)

# PS3.7 annex C; PS3.4 B.2.3, C.4.1 to C.4.3; PS3.18 I.2.2, which takes over the codes of C-STORE
_WORDS = {
    0x0105: "it knows no such attribute",
    0x0106: "an attribute has a value that it doesn't take",
    0x0107: "it doesn't take some attributes",
    0x0110: "it failed to process it",
    0x0111: "it has an instance of that UID already",
    0x0112: "it has no such instance",
    0x0115: "an argument has a value that it doesn't take",
    0x0116: "an attribute has a value out of its range",
    0x0117: "the instance's UID breaks the rules for UIDs",
    0x0118: "it knows no such SOP class",
    0x0119: "the SOP class isn't that of the instance",
    0x0120: "an attribute is missing",
    0x0121: "an attribute has no value",
    0x0122: "it doesn't take objects of this kind (SOP class)",
    0x0124: "it doesn't allow that to us",
    0x0210: "it took the request for one that it has already",
    0x0211: "it doesn't know this operation",
    0x0212: "it didn't understand an argument",
    0x0213: "it is out of resources",
    0xA700: "it is out of resources, such as room",
    0xA701: "it is out of resources: the number of matches can't be told",
    0xA702: "it is out of resources: the files can't be sent",
    0xA801: "it doesn't know the AE title that the files are to go to",
    0xA900: "the data doesn't fit the kind of object (SOP class)",
    0xB000: "some values were changed by the PACS",
    0xB006: "some attributes were dropped by the PACS",
    0xB007: "the data doesn't fit the kind of object (SOP class), but was taken",
    0xC000: "it can't understand the data",
    0xC122: "it doesn't take the encoding of the pixels (transfer syntax)",
    0xC123: "it doesn't take the study that the object belongs to",
    CANCELLED: "it was cancelled",
}
_RANGES = ((0xA700, 0xFF00, 0xA700), (0xA900, 0xFF00, 0xA900), (0xC000, 0xF000, 0xC000))  # code & mask, its word


def is_warning(status: int) -> bool:
    """Whether something was done after all, though not quite as it was asked (PS3.7, C.4 to C.5)."""
    return status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116)


def words(status: int) -> str:
    """A status in words, with its code.

    >>> words(0xA700), words(0xC1FF)
    ('it is out of resources, such as room (0xA700)', "it can't understand the data (0xC1FF)")
    """
    found = _WORDS.get(status)
    if found is None:
        places = (place for start, mask, place in _RANGES if status & mask == start)
        found = _WORDS.get(next(places, -1), "it gave a code that says nothing more")
    return f"{found} (0x{status:04X})"
