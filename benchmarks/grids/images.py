"""python -m benchmarks.grids.images: the data sets of the recorded grids, as Parquet files that `--data` takes.

    python -m benchmarks.grids.images glyphs data/glyphs                        # grey letters, drawn by Pillow
    python -m benchmarks.grids.images slice data/slice --source data/cifar10    # every 20th image of CIFAR-10

Glyphs are another kind of images than photographs: one grey value a pixel, half of an image blank. They are drawn from
the DejaVu fonts that matplotlib ships, so that everyone has the same.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tyro
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

FONTS = ("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSerif-Bold", "DejaVuSansMono")
CODES = (range(0x41, 0x5B), range(0x61, 0x7B), range(0x391, 0x3C9), range(0x410, 0x450))
CHARACTERS = [chr(code) for codes in CODES for code in codes]
GROUND = 170
"""Grey and not white, at which the tanh of the networks would have no gradient."""
EVERY = 20


def glyphs() -> dict[str, list[bytes]]:
    """Each character in each font at three places and sizes; one in five is for the test."""
    drawn = []
    for font in FONTS:
        file = Path(get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
        for size in (18, 23, 28):
            face = ImageFont.truetype(str(file), size)
            for character in CHARACTERS:
                image = Image.new("L", (32, 32), GROUND)
                ImageDraw.Draw(image).text((16, 16), character, fill=40, font=face, anchor="mm")
                buffer = io.BytesIO()
                image.convert("RGB").save(buffer, "png")
                drawn.append(buffer.getvalue())
    return {"train": [one for i, one in enumerate(drawn) if i % 5], "test": drawn[::5]}


def write(folder: Path, split: str, images: Iterable[bytes]) -> None:
    """One Parquet file in the layout of the public CIFAR-10 export."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": image, "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"img": pa.array(rows, kind)}), folder / f"{split}-00000-of-00001.parquet")


def main(kind: Literal["glyphs", "slice"], folder: Path, /, source: Path = Path("data/cifar10")) -> None:
    """Write one data set.

    Args:
        kind: glyphs, or every 20th image of a CIFAR-10 in Parquet.
        folder: where it goes.
        source: the folder of CIFAR-10's Parquet files.
    """
    if kind == "glyphs":
        for split, images in glyphs().items():
            write(folder, split, images)
        return
    for split in ("train", "test"):
        column = pq.read_table(next(source.glob(f"{split}-*.parquet")), columns=["img"])["img"]
        write(folder, split, pc.struct_field(column.combine_chunks(), "bytes").to_pylist()[::EVERY])


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.grids.images")
