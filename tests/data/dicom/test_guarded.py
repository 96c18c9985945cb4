"""A decoder that finds no end is given up, and others are waited for."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_files.made import data_of
from pellucid.data.dicom.guarded import within
from pellucid.data.images import read_image
from pellucid.data.whole import DecodeError
from pellucid.errors import UnreadableFileError


def busy(rounds: int) -> np.ndarray:
    """Work without Python's lock."""
    return np.frombuffer(hashlib.pbkdf2_hmac("sha256", b"a", b"b", rounds), np.uint8)


def test_results_and_errors_are_handed_on() -> None:
    np.testing.assert_array_equal(within(5.0, busy, 1), busy(1))

    def fault() -> np.ndarray:
        raise ValueError("what it says")

    with pytest.raises(ValueError, match="what it says"):
        within(5.0, fault)


def test_who_waits_for_others_is_not_given_up() -> None:
    def slow() -> np.ndarray:
        time.sleep(0.7)
        return np.zeros(1)

    assert within(0.1, slow).shape == (1,)  # it had hardly any of a processor


def test_who_finds_no_end_is_given_up() -> None:
    with pytest.raises(DecodeError, match="their decoder finds no end"):
        within(0.1, busy, 2_000_000)


@pytest.mark.slow
def test_a_stream_that_makes_charls_count_for_long_is_refused(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(str(pydicom.data.get_testdata_file("JPEGLSNearLossless_08.dcm")))
    data = bytearray(data_of(dataset))
    begin = data.index(b"\xff\xd8\xff\xf7")
    data[begin + 45], data[begin + 54] = 195, 93
    (tmp_path / "a.dcm").write_bytes(data)
    with pytest.raises(UnreadableFileError, match="the compressed pixels are damaged"):
        read_image(tmp_path / "a.dcm")
