"""Other packages are silent while they work for us, and as talkative as before afterwards."""

from __future__ import annotations

import logging
import warnings

import pytest

from pellucid.data.quiet import hushed, quiet_loggers


def test_loggers_are_held_back_and_given_back(caplog: pytest.LogCaptureFixture) -> None:
    names = ("pynetdicom.assoc", "pydicom", "highdicom.base", "urllib3.connectionpool")
    caplog.set_level(logging.DEBUG)
    logging.getLogger("highdicom").setLevel(logging.INFO)
    try:
        with pytest.raises(KeyError), quiet_loggers(), hushed():
            for name in names:
                logging.getLogger(name).critical("Nobody^Made^Up")
            raise KeyError
        assert caplog.records == []
        for name in names:
            logging.getLogger(name).error("as before")
        assert len(caplog.records) == len(names)
        assert logging.getLogger("highdicom").level == logging.INFO
    finally:
        logging.getLogger("highdicom").setLevel(logging.NOTSET)


def test_warnings_that_quote_values_are_held_back() -> None:
    with hushed():
        warnings.warn("Invalid value for VR PN: Nobody", UserWarning, stacklevel=1)
    with quiet_loggers(), pytest.warns(UserWarning, match="as before"):
        warnings.warn("as before", UserWarning, stacklevel=1)
