"""Names in place of names: the same for the same key, and without the key nothing that can be turned back."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import uuid
from datetime import date, timedelta
from pathlib import Path

from pellucid.data.dicom.deidentify.profile import REGISTERED
from pellucid.errors import InputError, StorageError, expected

NEAREST_DAY, FARTHEST_DAY = 30, 3650
"""Between how many days dates are moved into the past."""

PSEUDONYM = re.compile("P-[A-Z2-7]{10}")
"""What a patient's pseudonym looks like."""

_BYTES = 32


class Pseudonyms:
    """Pseudonyms by HMAC-SHA256 with a secret key (32 bytes)."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _BYTES:
            raise expected("key", f"{_BYTES} bytes", f"{len(key)}")
        self._key = key

    def uid(self, uid: str) -> str:
        """Another UID, below 2.25 (PS3.5, B.2); those that DICOM itself gives stay.

        >>> names = Pseudonyms(bytes(32))
        >>> names.uid("1.2.3") == names.uid("1.2.3 "), names.uid("1.2.3")[:5], names.uid("1.2.840.10008.1.2")
        (True, '2.25.', '1.2.840.10008.1.2')
        """
        uid = uid.strip(" \0")
        if not uid or uid.startswith(REGISTERED):
            return uid
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=4).int}"

    def patient(self, identity: str) -> str:
        """A patient's pseudonym, such as P-4KWJ6WQ3XN."""
        return "P-" + self._letters("patient", identity, 10)

    def short(self, kind: str, text: str) -> str:
        """Eight letters for a folder, or any other thing of a kind."""
        return self._letters(kind, text, 8).lower()

    def days(self, identity: str) -> int:
        """By how many days the dates of a patient are moved, below zero."""
        number = int.from_bytes(self._digest("days", identity)[:8], "big")
        return -(NEAREST_DAY + number % (FARTHEST_DAY - NEAREST_DAY + 1))

    def fingerprint(self, data: bytes) -> str:
        """What tells a file again without telling what is in it."""
        return hmac.new(self._key, b"file\0" + hashlib.sha256(data).digest(), hashlib.sha256).hexdigest()[:32]

    def _letters(self, kind: str, text: str, count: int) -> str:
        return base64.b32encode(self._digest(kind, text)).decode()[:count]

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.new(self._key, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256).digest()


def load_key(path: Path, *, make: bool = True) -> Pseudonyms:
    """The key in a file; where there is no file, a new one is made that its owner alone can read.

    Raises InputError for a file that holds no key, or is missing and shouldn't be made; StorageError.
    """
    path = path.expanduser()
    if make and not path.exists():
        _make(path)
    try:
        text = path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
    except OSError as error:
        raise InputError(f"key: can't read {path}: {error.strerror or error}.") from error
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise expected("key", f"a file of {2 * _BYTES} hexadecimal digits", str(path), do="Name another --key.")
    return Pseudonyms(key)


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"can't write the key {path}: {error.strerror or error}. Name another --key.") from error


def moved_date(text: str, days: int) -> str | None:
    """A DICOM date (DA) moved by days; None where it isn't one.

    >>> moved_date("20240229", -366), moved_date("2024.03.01", -1), moved_date("soon", 1)
    ('20230228', '20240229', None)
    """
    digits = text.strip(" \0").replace(".", "")
    if len(digits) != 8 or not digits.isdecimal():
        return None
    try:
        moved = date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) + timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04}{moved.month:02}{moved.day:02}"


def moved_datetime(text: str, days: int) -> str | None:
    """A DICOM date and time (DT), to whichever precision, moved by days; None where it isn't one.

    >>> moved_datetime("20240301121500.5+0100", -1), moved_datetime("2024", -40), moved_datetime("x", 1)
    ('20240229121500.5+0100', '2024', None)
    """
    text = text.strip(" \0")
    digits = len(text) - len(text.lstrip("0123456789"))
    if digits >= 8:
        moved = moved_date(text[:8], days)
        return None if moved is None else moved + text[8:]
    if digits in (4, 6):  # the middle of the year or month stands for it
        moved = moved_date(text[:digits] + ("0701" if digits == 4 else "15"), days)
        return None if moved is None else moved[:digits] + text[digits:]
    return None
