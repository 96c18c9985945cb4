"""How much memory a network's tensors take while it runs, and how many images fit into what there is."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pellucid.errors import InputError, expected

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
_SPARED = 0.8  # of the free memory, since what libraries set aside for themselves isn't seen


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside and still held, and how many they were at most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.most = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {id(each.untyped_storage()) for each in tree_leaves((args, kwargs)) if _is_plain(each)}
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if _is_plain(each):
                self._count(each.untyped_storage(), given)
        return out

    def _count(self, storage: Any, given: set[int]) -> None:
        if storage in self._known or id(storage) in given:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def most_held(run: Callable[[], object]) -> int:
    """Bytes that the tensors made by `run` take at most at one time; what was there before doesn't count.

    >>> most_held(lambda: torch.zeros(1000).add(1).sum())
    8000
    """
    live = _Live()
    with live:
        run()
    return live.most


class Fit(NamedTuple):
    """How many rows run at once, the bytes that one takes, and those that all leave of the memory they may take."""

    rows: int
    one: int
    spare: int


def rows_within(run: Callable[[int], object], most_rows: int, memory: int) -> Fit:
    """How many rows `run(rows)` may take so that its tensors stay within `memory` bytes.

    Memory is taken to grow evenly from one row to the next; `most_rows` at most, and 0 where one is too many.
    """
    one = most_held(lambda: run(1))
    if most_rows == 1 or one > memory:
        return Fit(int(one <= memory), one, max(0, memory - one))
    each = max(most_held(lambda: run(2)) - one, 1)
    rows = min(most_rows, 1 + (memory - one) // each)
    return Fit(rows, one, memory - one - (rows - 1) * each)


def checked_rows(
    run: Callable[[int], object], batch_size: int, memory: int | None, parts: int = 1, copies: int = 0
) -> tuple[int, int | None]:
    """`batch_size`, or as many rows as stay within `max_memory` bytes where that is fewer, and the bytes to spare.

    Of as many equal `parts` of the memory, the rows have one, less the bytes that `copies` of weights take of all.

    Raises:
        InputError: a single row takes more; says how much.
    """
    if memory is None:
        return batch_size, None
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < 1:
        raise expected("max_memory", "bytes, at least 1", memory)
    rows, one, spare = rows_within(run, batch_size, (memory - copies) // parts)
    if not rows:
        least = one * parts + copies
        what = "one image takes" + " beside copies of the weights" * bool(copies)
        do = "Give more, or leave compile=True out." if copies else ""
        raise expected("max_memory", f"at least {least} bytes ({least / 2**20:.1f} MiB), which {what}", memory, do=do)
    return rows, spare


def give_back() -> None:
    """Have the C library give freed memory back to the system; what it keeps in pieces would grow from time to time."""
    if _TRIM is not None:
        _TRIM(0)


class Bound:
    """Gives freed memory back where the process takes many bytes more than when this was first asked."""

    def __init__(self, most: int | None) -> None:
        """Arguments: bytes from which on it is given back; None never does."""
        self._most = most
        self._limit: int | None = None
        self._least_limit = 0

    def __call__(self) -> None:
        """Look whether it is due. What is still taken right after isn't in pieces, so that the next time is later."""
        if self._most is None or _TRIM is None:
            return
        if self._limit is None:
            give_back()
            self._limit = self._least_limit = _taken() + self._most
        elif _taken() > self._limit:
            give_back()
            self._limit = max(self._least_limit, _taken() + self._most // 8)


def _taken() -> int:
    """Bytes of memory that this process takes now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def free_bytes(device: torch.device | None) -> int | None:
    """Memory that is free for tensors on `device`; None where it can't be told."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if (device is not None and device.type != "cpu") or not sys.platform.startswith("linux"):
        return None
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        free = min(free, limit - taken)
    return max(free, 0)


@contextlib.contextmanager
def told_if_full(run: Callable[[int], object], batch_size: int, device: torch.device | None) -> Iterator[None]:
    """Where memory runs out inside, say which batch size would fit.

    Raises:
        InputError: it ran out; names a batch size, or says that a single image is too large.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        error.__traceback__ = None  # whose frames hold tensors
        error.__context__ = error.__cause__ = None
    else:
        return
    raise _full(run, batch_size, device, reason)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on an accelerator or the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def _full(run: Callable[[int], object], batch_size: int, device: torch.device | None, reason: str) -> InputError:
    gc.collect()
    if device is not None and device.type == "cuda":
        torch.cuda.empty_cache()
    free = free_bytes(device)
    where = "the memory" if device is None else f"the memory of {device}"
    fits = 0 if free is None else batch_size - 1
    try:
        if free is not None and fits:
            fits = rows_within(run, fits, int(free * _SPARED)).rows
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fits = 0
    if fits:
        wanted, do = f"at most about {fits} images of this size at once", f"Pass batch_size={fits}."
    elif free is None and batch_size > 1:
        wanted, do = f"fewer than {batch_size} images at once", f"Pass batch_size={batch_size // 2} or less."
    else:
        wanted = f"images of which one fits into {where}"
        do = "Use smaller images, a sliding window (window=), or a device with more memory."
        return expected("images", wanted, f"one that doesn't ({reason})", do=do)
    return expected("batch_size", wanted, f"{batch_size}, which don't fit into {where} ({reason})", do=do)
