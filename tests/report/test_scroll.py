"""Volumes to scroll through: what the script is given lies where it should, and the page needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image

from pellucid.drawing import OUTLINE
from pellucid.report.page import page
from pellucid.report.scroll import STILL, script, scroll
from pellucid.report.volumes import Seen, SeenMap, planes

SHAPE = (24, 30, 20)
AFFINE = np.array([[2.0, 0, 0, -20], [0, 1.0, 0, 5], [0, 0, 3.0, -7], [0, 0, 0, 1]])
MARKER, PEAK = (18, 25, 4), (5, 8, 15)


def made(codes: str = "RAS") -> dict[str, Any]:
    """A volume with a bright marker, a mask around it and two maps with a peak, stored along some axes."""
    grey = np.full(SHAPE, 40, np.uint8)
    grey[tuple(slice(place - 1, place + 2) for place in MARKER)] = 250
    mask = grey > 200
    grids = np.stack(np.indices(SHAPE)) - np.array(PEAK)[:, None, None, None]
    bell = np.exp(-(grids**2).sum(axis=0) / 8).astype(np.float32)
    signed = (
        bell
        - np.exp(-((grids - np.array([8, 8, -6])[:, None, None, None]) ** 2).sum(axis=0) / 8).astype(np.float32) / 2
    )
    change = ornt_transform(io_orientation(AFFINE), axcodes2ornt(codes))
    stored = [np.ascontiguousarray(apply_orientation(each, change)) for each in (grey, mask, bell, signed)]
    return {
        "grey": stored[0],
        "affine": AFFINE @ inv_ornt_aff(change, SHAPE),
        "mask": stored[1],
        "maps": [("bell", stored[2]), ("signed", stored[3]), ("nothing", np.zeros(stored[0].shape, np.float32))],
    }


def data_of(parts: dict[str, Any], **asked: Any) -> dict[str, Any]:
    found = scroll(parts["grey"], parts["affine"], parts["maps"], mask=parts["mask"], **asked)
    data: dict[str, Any] = json.loads(found.data)
    return data


def decoded(uri: str, shape: list[int]) -> np.ndarray:
    """A sprite as the script reads it."""
    kind, content = uri.split(",", 1)
    assert kind == "data:image/webp;base64"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))[..., 0]
    depth, height, width = shape
    columns = int(np.ceil(np.sqrt(depth)))
    return np.stack(
        [picture[place // columns * height :, place % columns * width :][:height, :width] for place in range(depth)]
    )


def upright(voxel: tuple[int, int, int]) -> tuple[int, int, int]:
    """Where a voxel of `SHAPE` is, from the head down, from the front back and from the right to the left."""
    return SHAPE[2] - 1 - voxel[2], SHAPE[1] - 1 - voxel[1], SHAPE[0] - 1 - voxel[0]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "AIR"])
def test_voxels_maps_and_masks_lie_upright_however_they_are_stored(codes: str) -> None:
    data = data_of(made(codes))
    assert data["shape"] == data["slices"] == [20, 30, 24]
    assert data["steps"] == [3.0, 1.0, 2.0]
    assert data["sides"] == [["H", "F"], ["A", "P"], ["R", "L"]]
    image = decoded(data["image"], data["shape"])
    assert image[upright(MARKER)] > 200
    assert abs(int(np.median(image)) - 40) < 8
    mask = decoded(data["mask"], data["shape"]) > 127
    assert mask[upright(MARKER)]
    assert 15 < mask.sum() < 45
    bell, signed, nothing = data["maps"]
    assert bell["start"] == list(upright(PEAK)) == data["start"]
    values = decoded(bell["uri"], bell["shape"])
    assert values[upright(PEAK)] > 240
    assert (values < 2 * STILL).mean() > 0.8
    assert not bell["signed"]
    assert signed["signed"]
    towards = decoded(signed["uri"], signed["shape"]).astype(int) - 128
    assert towards[upright(PEAK)] > 110
    assert towards.min() < -60
    assert (np.abs(towards) < STILL).mean() > 0.6
    assert nothing["title"] == "nothing (no evidence)"
    assert (decoded(nothing["uri"], nothing["shape"]) < 2 * STILL).all()
    place = np.array(data["affine"]) @ [*upright(PEAK), 1]
    np.testing.assert_allclose(place, (AFFINE @ [*PEAK, 1])[:3], atol=1e-2)


def test_large_volumes_are_brought_to_bounds_and_begin_where_the_peak_is() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (200, 260, 90), dtype=np.uint8)
    values = np.zeros(grey.shape, np.float32)
    values[150, 40, 80] = 3
    parts = {"grey": grey, "affine": np.diag([0.5, 0.5, 2.0, 1.0]), "mask": None, "maps": [("one", values)]}
    full = scroll(parts["grey"], parts["affine"], parts["maps"])  # type: ignore[arg-type]
    data = json.loads(full.data)
    assert data["shape"] == [64, 160, 123]
    assert data["slices"] == [90, 260, 200]
    peak = (89 - 80, 259 - 40, 199 - 150)
    wanted = [
        int((each + 0.5) * kept / own) for each, kept, own in zip(peak, (64, 160, 123), (90, 260, 200), strict=True)
    ]
    assert data["start"] == wanted
    assert np.array(data["affine"]) @ [*data["start"], 1] == pytest.approx([75, 20, 160], abs=1.6)
    small = scroll(parts["grey"], parts["affine"], parts["maps"], share=300_000)  # type: ignore[arg-type]
    assert len(small.data) < len(full.data) / 2
    assert max(json.loads(small.data)["shape"]) < 160


def test_the_colours_are_those_of_overlays() -> None:
    said = re.search(r'id="scroll-colours">(.*?)</script>', script())
    assert said is not None
    colours = json.loads(said[1])
    plain = np.array(colours["plain"]).reshape(256, 3)
    np.testing.assert_allclose(plain[255], np.array(mpl.colormaps["viridis"](1.0)[:3]) * 255, atol=1)
    np.testing.assert_allclose(plain[128], np.array(mpl.colormaps["viridis"]((128 / 255) ** 2)[:3]) * 255, atol=1)
    signed = np.array(colours["signed"]).reshape(256, 3)
    np.testing.assert_allclose(signed[128], np.array(mpl.colormaps["RdBu_r"](0.5)[:3]) * 255, atol=2)
    assert signed[255, 0] > 2 * signed[255, 2]
    assert signed[1, 2] > 2 * signed[1, 0]
    assert tuple(colours["outline"]) == OUTLINE


def whole_page(codes: str = "SPL") -> str:
    parts = made(codes)
    seen = Seen(
        parts["grey"],
        parts["affine"],
        [SeenMap(title, values, title, signed=title == "signed") for title, values in parts["maps"]],
        parts["mask"],
    )
    volume = {
        "name": "</script><b>volume</b>",
        "target": "lesion",
        "probability": "98 %",
        "window": "lung window, -600/1500",
        "scroll": scroll(parts["grey"], parts["affine"], parts["maps"], mask=parts["mask"], name="</script>"),
        "pictures": planes(seen, "one"),
        "overlay": "one.overlay.png",
    }
    return page(
        "explained.html.j2", intro="One.", model="net", volumes=[volume], others=[("x", "x.overlay.png")], scales=[],
        note="", scroll_script=script(),
    )  # fmt: skip


def test_the_page_needs_nothing_else_and_shows_planes_without_the_script() -> None:
    text = whole_page()
    assert not re.search(r"""(src|href)=["'](?!data:|#|x\.overlay)""", text)
    assert "http" not in re.sub(r"data:[^\"']+", "", text)
    assert text.count("<img") == 4  # the bare volume and three maps in three planes each
    assert re.search(r'<div class="scroll-box" hidden>', text)
    assert "lung window, -600/1500" in text
    assert text.count("</script>") == 3  # what comes from outside can't end a script
    assert "<b>volume</b>" not in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium isn't installed")
def test_a_browser_scrolls(tmp_path: Path) -> None:
    """Sliders, keys, a click, the map off and another map change what is seen, from a file and without a server."""
    drive = """
    <script>
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    (async () => {
      while (!document.querySelector(".scroll-box[data-ready]")) await wait(1000);
      const box = document.querySelector(".scroll-box"), told = {};
      const canvases = [...box.querySelectorAll("canvas")], said = () => [...box.querySelectorAll(".scroll-view output")].map((each) => each.textContent);
      const seen = () => canvases.map((each) => each.toDataURL());
      const ranges = box.querySelectorAll(".scroll-view input");
      const changed = async (act) => {
        const before = seen(), differ = () => seen().map((each, i) => each !== before[i]);
        act();
        while (!differ().includes(true)) await wait(1000); // another map is decoded first
        return differ();
      };
      told.start = said();
      told.slider = await changed(() => { ranges[0].value = 2; ranges[0].dispatchEvent(new Event("input")); });
      told.moved = said();
      told.key = await changed(() => canvases[2].dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowDown", bubbles: true})));
      told.off = await changed(() => box.querySelector("input[type=checkbox]").click());
      told.on = await changed(() => box.querySelector("input[type=checkbox]").click());
      told.other = await changed(() => box.querySelectorAll("input[type=radio]")[1].click());
      box.querySelector("button").click();
      told.back = said();
      told.place = box.querySelector(".scroll-place").textContent;
      const note = document.createElement("pre"); note.id = "told"; note.textContent = JSON.stringify(told); document.body.prepend(note);
    })();
    </script></body>"""  # noqa: E501
    path = tmp_path / "page.html"
    path.write_text(whole_page().replace("</body>", drive), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=100000000", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,2000"]
    run = subprocess.run(
        ["chromium", *options, path.as_uri()], capture_output=True, text=True, check=False, timeout=120
    )
    found = re.search(r'<pre id="told">(.*?)</pre>', run.stdout)
    assert found is not None, run.stderr[-2000:]
    told = json.loads(found[1].replace("&quot;", '"'))
    depth, row, column = upright(PEAK)
    begins = [
        f"axial, slice {depth + 1} of 20", f"coronal, slice {row + 1} of 30", f"sagittal, slice {column + 1} of 24",
    ]  # fmt: skip
    assert told["start"] == told["back"] == begins
    assert told["moved"][0] == "axial, slice 3 of 20"
    assert told["slider"] == [True] * 3  # the cross-hair of the others moves
    assert told["key"] == [True] * 3
    assert told["off"] == told["on"]
    assert any(told["off"])
    assert any(told["other"])
    right, front, up = (AFFINE @ [*PEAK, 1])[:3]
    assert told["place"] == f"at ({right:.0f}, {front:.0f}, {up:.0f}) mm to the right, front and head"
