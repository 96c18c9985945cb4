"""From the encoded bytes of one frame to its samples: one function to a family of transfer syntaxes.

A stream says how large its picture is. That is held against the file's header before a decoder sees any of it: decoders
spend memory on what a stream claims, and the header has been checked.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pellucid.data.dicom.guarded import within
from pellucid.data.dicom.layout import Layout
from pellucid.data.whole import DecodeError, check_jpeg

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS = 0xC3
_JPEG_READ = (0xC0, 0xC1, 0xC2, _LOSSLESS)  # baseline, extended, progressive, lossless; all with Huffman codes
_RGB_IDS = (b"RGB", b"rgb")


@dataclass(frozen=True, eq=False)
class Frame:
    """Samples (H, W) or (H, W, C) of one frame, the bits that each takes, and whether they are signed.

    `colours` is what they are, whatever the header says: "RGB", "YBR_FULL", or "" where the header is to be asked.
    """

    samples: np.ndarray
    precision: int
    signed: bool
    colours: str = ""


@dataclass(frozen=True)
class _Jpeg:
    """What the headers of a JPEG or JPEG-LS stream say."""

    kind: int
    precision: int
    rows: int
    columns: int
    ids: bytes
    adobe: int | None
    jfif: bool


def decoder_of(syntax: str) -> Callable[[bytes, Layout], Frame]:
    """The decoder of a transfer syntax. Raises DecodeError where there is none, and says what the syntax is."""
    if syntax in _DECODERS:
        return _DECODERS[syntax]
    name = _UNREAD.get(syntax)
    if name is None and syntax.startswith("1.2.840.10008.1.2.4.10"):
        name = "a video"
    if name is None:
        raise DecodeError(f"its transfer syntax, {_shown(syntax)}, is unknown, so that no package can be named for it")
    raise DecodeError(
        f"its pixels are {name} (transfer syntax {syntax}), which isn't read; convert it to another first"
    )


def _shown(syntax: str) -> str:
    """A transfer syntax, where it is one."""
    return syntax if len(syntax) <= 64 and all(each.isdigit() or each == "." for each in syntax) else "no valid UID"


def _jpeg(data: bytes, layout: Layout) -> Frame:
    """JPEG with 8, 12 and 16 bits, lossy and lossless, through libjpeg-turbo (ISO 10918-1)."""
    import imagecodecs

    about = _jpeg_headers(data)
    if about.kind not in _JPEG_READ:
        raise DecodeError(f"its pixels are JPEG of a kind that isn't read (marker FF{about.kind:02X})")
    _same_size("JPEG", about.rows, about.columns, len(about.ids), layout)
    check_jpeg(data)
    if layout.samples == 1:
        samples = imagecodecs.jpeg8_decode(data, colorspace="GRAYSCALE", outcolorspace="GRAYSCALE")
        return Frame(samples, about.precision, False)
    stated = "YBR_FULL" if layout.photometric.startswith("YBR") else "RGB"
    colours = _jpeg_colours(about) or stated
    if about.kind == _LOSSLESS or colours == "RGB":  # as they are; libjpeg turns no colours of lossless streams
        return Frame(
            imagecodecs.jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB"), about.precision, False, colours
        )
    return Frame(imagecodecs.jpeg8_decode(data, colorspace="YCBCR", outcolorspace="RGB"), about.precision, False, "RGB")


def _jpeg_colours(about: _Jpeg) -> str:
    """What three components are by the stream's own word, which goes before the header's; "" where it has none.

    The names of components come first, then Adobe's marker, then JFIF's, as in libjpeg; a lossless stream isn't one of
    JFIF, whatever it says.
    """
    if about.ids in _RGB_IDS:
        return "RGB"
    if about.adobe is not None:
        return "YBR_FULL" if about.adobe == 1 else "RGB"
    return "YBR_FULL" if about.jfif and about.kind != _LOSSLESS else ""


def _jpeg_headers(data: bytes) -> _Jpeg:
    """The frame header of a JPEG or JPEG-LS stream, and the markers before it that speak of colours."""
    if data[:2] != b"\xff\xd8":
        raise DecodeError("its pixel data is damaged (no JPEG)")
    place, adobe, jfif = 2, None, False
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        length = struct.unpack_from(">H", data, place + 2)[0]
        body = data[place + 4 : place + 2 + length]
        if (marker in _JPEG_FRAMES or marker == 0xF7) and len(body) >= 6 + 3 * body[5]:
            precision, rows, columns, count = struct.unpack_from(">BHHB", body)
            return _Jpeg(marker, precision, rows, columns, bytes(body[6 : 6 + 3 * count : 3]), adobe, jfif)
        if marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        jfif = jfif or (marker == 0xE0 and body.startswith(b"JFIF"))
        place += 2 + length
    raise DecodeError("its pixel data is damaged (a JPEG without a frame)")


def _jpeg_ls(data: bytes, layout: Layout) -> Frame:
    """JPEG-LS through CharLS (ISO 14495-1)."""
    import imagecodecs

    about = _jpeg_headers(data)
    if about.kind != 0xF7:
        raise DecodeError("its pixel data is damaged (no JPEG-LS)")
    _same_size("JPEG-LS", about.rows, about.columns, len(about.ids), layout)
    size = layout.rows * layout.columns * layout.samples
    samples = within(0.5 + 1e-6 * size, imagecodecs.jpegls_decode, data)
    if samples.size != size:
        raise DecodeError("its pixel data is damaged (no JPEG-LS)")
    return Frame(_shaped(samples, layout), about.precision, False)


def _jpeg_2000(data: bytes, layout: Layout) -> Frame:
    """JPEG 2000 and its high-throughput form through OpenJPEG (ISO 15444-1, A.5.1); colour comes as RGB."""
    from openjpeg.utils import decode_pixel_data

    place = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if place < 0 or place + 42 > len(data):
        raise DecodeError("its pixel data is damaged (no JPEG 2000)")
    right, down, left, top, tile_right, tile_down = struct.unpack_from(">6L", data, place + 8)
    components = struct.unpack_from(">H", data, place + 40)[0]
    if place + 42 + 3 * components > len(data):
        raise DecodeError("its pixel data is damaged (no JPEG 2000)")
    sizes = [data[place + 42 + 3 * each : place + 45 + 3 * each] for each in range(min(components, 4))]
    _same_size("JPEG 2000", down - top, right - left, components, layout)
    if any(size != sizes[0][:1] + b"\x01\x01" for size in sizes):
        raise DecodeError("its pixels are JPEG 2000 with components of several kinds, which isn't read")
    tiles = -(-(right - left) // max(1, tile_right)) * -(-(down - top) // max(1, tile_down))
    if tiles > 2**16:
        raise DecodeError("its pixel data is damaged (JPEG 2000 in too many tiles)")
    precision, signed = (sizes[0][0] & 0x7F) + 1, bool(sizes[0][0] & 0x80)
    if precision > 32:
        raise DecodeError(f"its pixels are JPEG 2000 with {precision} bits, which isn't read")
    buffer = decode_pixel_data(data, version=2)
    width = 1 if precision <= 8 else 2 if precision <= 16 else 4
    samples = np.frombuffer(buffer, f"<{'ui'[signed]}{width}")
    return Frame(
        _shaped(samples, layout), precision, signed, "RGB" if layout.photometric in ("YBR_RCT", "YBR_ICT") else ""
    )


def _run_lengths(data: bytes, layout: Layout) -> Frame:
    """Run lengths of the bytes of each sample, the highest first (PS3.5, annex G).

    Not through pylibjpeg-rle, which ends in a panic of its own language where a run is longer than it should be.
    """
    import imagecodecs

    count = struct.unpack_from("<L", data)[0] if len(data) >= 64 else 0
    width = max(8, layout.allocated) // 8
    if count != layout.samples * width or count > 15:
        raise DecodeError(f"its pixel data is damaged ({count} runs of bytes, of {layout.samples * width})")
    places = [*struct.unpack_from(f"<{count}L", data, 4), len(data)]
    if places[0] < 64 or any(start > end for start, end in itertools.pairwise(places)) or places[-2] > len(data):
        raise DecodeError("its pixel data is damaged (the places of its runs of bytes)")
    size = layout.rows * layout.columns
    packed = -(-size // 8) if layout.allocated == 1 else size
    planes = np.empty((layout.samples, packed, width), np.uint8)
    for number, (start, end) in enumerate(itertools.pairwise(places)):
        run = imagecodecs.packbits_decode(data[start:end])
        if len(run) < packed:
            raise DecodeError(f"its pixel data is damaged (a run of {len(run)} bytes, of {packed})")
        planes[number // width, :, width - 1 - number % width] = np.frombuffer(run, np.uint8, packed)
    if layout.allocated == 1:
        bits = np.unpackbits(planes[0, :, 0], count=size, bitorder="little")
        return Frame(bits.reshape(layout.rows, layout.columns), 1, False)
    samples = planes.view(f"<u{width}")[..., 0].T
    return Frame(_shaped(np.ascontiguousarray(samples), layout), 8 * width, False)


def _same_size(kind: str, rows: int, columns: int, components: int, layout: Layout) -> None:
    if (rows, columns, components) != (layout.rows, layout.columns, layout.samples):
        wanted = f"{layout.columns} × {layout.rows} × {layout.samples}"
        raise DecodeError(f"its header says {wanted}, but its {kind} stream {columns} × {rows} × {components}")


def _shaped(samples: np.ndarray, layout: Layout) -> np.ndarray:
    return samples.reshape(layout.rows, layout.columns, *(() if layout.samples == 1 else (layout.samples,)))


def inflated(data: bytes, length: int) -> bytes:
    """A deflated frame of native pixels (PS3.5, A.4.12)."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = inflate.decompress(data, length + 2)
    except zlib.error as error:
        raise DecodeError("its compressed pixels are damaged") from error
    if len(found) < length:
        raise DecodeError("its compressed pixels are damaged")
    return found


_JPEG = "1.2.840.10008.1.2.4."
_DECODERS: dict[str, Callable[[bytes, Layout], Frame]] = {
    **dict.fromkeys((f"{_JPEG}{end}" for end in (50, 51, 53, 55, 57, 70)), _jpeg),
    **dict.fromkeys((f"{_JPEG}{end}" for end in (80, 81)), _jpeg_ls),
    **dict.fromkeys((f"{_JPEG}{end}" for end in (90, 91, 201, 202, 203)), _jpeg_2000),
    "1.2.840.10008.1.2.5": _run_lengths,
}
_UNREAD = {
    **{f"{_JPEG}{end}": "JPEG XL" for end in (110, 111, 112)},
    **{f"{_JPEG}{end}": "multi-component JPEG 2000" for end in (92, 93)},
    **{f"{_JPEG}{end}": "on a server (JPIP)" for end in (94, 95, 204, 205)},
    "1.2.840.10008.1.2.7.1": "a video",
    "1.2.840.10008.1.2.7.2": "a video",
    "1.2.840.10008.1.2.7.3": "sound",
}
