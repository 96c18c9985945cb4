"""The page of pictures that seem to bear burned-in text, for someone to look at."""

from __future__ import annotations

from pathlib import Path

from pellucid.data.dicom.deidentify import Outcome, Written
from pellucid.data.dicom.deidentify.review import picture_name
from pellucid.files import write_text
from pellucid.report.names import counted
from pellucid.report.page import page

_WORDS = {"text": "seems to bear text", "stated": "says that it bears text", "blackened": "blackened"}


def write_burned_in(outcome: Outcome, review: Path) -> Path:
    """Write `index.html` into the folder of pictures; returns it. It shows what is to be hidden: don't pass it on."""
    shown = [
        {
            "name": picture_name(each.file),
            "caption": f"{_WORDS[each.burned_in]}: {each.file}",
            "boxes": counted(len(each.boxes), "box", "boxes"),
        }
        for each in sorted(outcome.files, key=_order)
        if each.burned_in in _WORDS and (review / picture_name(each.file)).is_file()
    ]
    often = sum(each.burned_in == "often" for each in outcome.files)
    path = review / "index.html"
    intro = f"{counted(len(shown), 'picture')} of {counted(len(outcome.files), 'file')}"
    write_text(path, page("burned_in.html.j2", intro=intro, shown=shown, often=often and counted(often, "file")))
    return path


def _order(each: Written) -> tuple[int, str]:
    return list(_WORDS).index(each.burned_in) if each.burned_in in _WORDS else len(_WORDS), each.file
