"""UIDs that follow from what they name, so that equal objects have equal ones."""

from __future__ import annotations

import hashlib
import uuid


def derived_uid(*parts: object) -> str:
    """A UID below 2.25 that belongs to these parts, and to no others (PS3.5, B.2).

    It is the number of a UUID of version 8, whose bits are those of a SHA-256 of the parts.

    >>> derived_uid("map", "1.2.3", 0) == derived_uid("map", "1.2.3", 0) != derived_uid("map", "1.2.30")
    True
    """
    total = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        total.update(len(data).to_bytes(8, "little"))  # so that no two lists of parts run together to one
        total.update(data)
    value = int.from_bytes(total.digest()[:16], "big")
    value = value & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
    return f"2.25.{uuid.UUID(int=value).int}"
