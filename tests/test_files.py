import errno
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from pellucid.errors import InputError, PellucidError
from pellucid.files import (
    folder_written_whole,
    inside,
    read_json,
    read_table,
    write_json,
    write_table,
    write_text,
    written_whole,
)


def test_a_failed_write_leaves_the_former_version_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as aside:
        aside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_an_os_error_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(PellucidError, match=r"can't write .*a\.txt: No space left on device.*run the same command"),
        written_whole(tmp_path / "a.txt"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_over_the_size_limit_is_refused_whole(tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: the operating system cuts the write off."""
    script = f"""
        import resource, signal
        from pathlib import Path
        from pellucid.errors import PellucidError
        from pellucid.files import write_text
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))
        try:
            write_text(Path({str(tmp_path)!r}) / "big.txt", "x" * 100_000)
        except PellucidError as error:
            print(error)
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert "can't write" in finished.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables_come_back_and_repeat_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame({"name": ["a", "b"], "value": [0.1, 2.0]})
    for name in ("one", "two"):
        write_table(tmp_path / f"{name}{suffix}", table)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
    pd.testing.assert_frame_equal(read_table(tmp_path / f"one{suffix}"), table)


def test_a_table_needs_a_known_ending(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ending in .parquet or .csv, got 'a.xls'"):
        write_table(tmp_path / "a.xls", pd.DataFrame())


def test_json_is_sorted_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    assert (tmp_path / "a.json").read_text().index('"a"') < (tmp_path / "a.json").read_text().index('"b"')
    assert read_json(tmp_path / "a.json") == {"a": [2], "b": 1}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd"])
def test_paths_cannot_leave_their_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match="expected a file inside"):
        inside(tmp_path, path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_text("")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="expected a file inside"):
        inside(tmp_path / "data", "link")
    assert inside(tmp_path / "data", "a/b.png") == (tmp_path / "data" / "a" / "b.png").resolve()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a"
    for text in ("old", "new"):
        with folder_written_whole(path) as aside:
            assert list(aside.iterdir()) == []
            (aside / f"{text}.txt").write_text(text)
    assert [entry.name for entry in path.iterdir()] == ["new.txt"]
    for error, told in ((ZeroDivisionError(), ZeroDivisionError), (OSError(errno.ENOSPC, "full"), PellucidError)):
        with pytest.raises(told), folder_written_whole(path) as aside:
            (aside / "half.txt").write_text("half")
            raise error
    assert [entry.name for entry in path.iterdir()] == ["new.txt"]
    assert [entry.name for entry in path.parent.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_renamed_leaves_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "old.txt").write_text("old")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise OSError(errno.EACCES, "refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PellucidError, match="refused"), folder_written_whole(path) as aside:
        (aside / "new.txt").write_text("new")
    assert (path / "old.txt").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
