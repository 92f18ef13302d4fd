"""An ``.npy`` of known shape that is written batch by batch and survives a kill between any two bytes.

Beside it lies a checksum for each batch. What a killed process or a power cut left is read again: the batches whose
checksums are right are kept, and writing goes on after them.
"""

import io
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

_SUM_BYTES = 4


class GrowingArray:
    """A context manager, for one process at a time. Errors of the disk are ``OSError``."""

    def __init__(self, path: Path, shape: tuple[int, ...], kind: np.dtype[Any], batch: int) -> None:
        """Open ``path`` for an array of ``shape`` and ``kind``; all batches but the last have ``batch`` rows."""
        self.kind = kind
        self.rows = 0
        """How many rows are whole."""
        self._path, self._sums_path = path, path.with_suffix(".crc")
        header = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        self._header = header.getvalue()
        self._shape, self._batch = shape, batch

    def __enter__(self) -> "GrowingArray":
        for path in (self._path, self._sums_path):
            path.touch()
        self._array, self._sums = self._path.open("r+b"), self._sums_path.open("r+b")
        self._keep_whole_batches()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._array.flush()
            os.fsync(self._array.fileno())
        finally:
            self._array.close()
            self._sums.close()

    def append(self, block: npt.NDArray[Any]) -> None:
        """The next batch; its rows are converted to the array's type."""
        content = block.astype(self.kind).tobytes()
        # the checksum second: without it the batch counts as not written
        for file, part in ((self._array, content), (self._sums, _sum(content))):
            file.write(part)
            file.flush()
        self.rows += len(block)

    def _keep_whole_batches(self) -> None:
        """Cut both files after the last batch that is as it was written; an array of another header begins anew."""
        row = int(np.prod(self._shape[1:])) * self.kind.itemsize
        if self._array.read(len(self._header)) != self._header:
            self._array.seek(0)
            self._array.write(self._header)
            self._sums.truncate(0)
        end, sums = len(self._header), 0
        while self.rows < self._shape[0]:
            rows = min(self._batch, self._shape[0] - self.rows)
            content = self._array.read(rows * row)
            if len(content) < rows * row or self._sums.read(_SUM_BYTES) != _sum(content):
                break
            self.rows, end, sums = self.rows + rows, end + len(content), sums + _SUM_BYTES
        for file, length in ((self._array, end), (self._sums, sums)):
            file.seek(length)
            file.truncate()


def _sum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_SUM_BYTES, "little")
