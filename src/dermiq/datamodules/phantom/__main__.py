"""``python -m dermiq.datamodules.phantom --preview sheet.png``: a contact sheet of synthetic lesions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from dermiq.datamodules.phantom.canvas import PLAIN, SKIN_TONES, Camera
from dermiq.datamodules.phantom.source import CONDITIONS, PhantomSource
from dermiq.programs.arguments import Program

_CAPTION = 150  # pixels left of the pictures
_TITLE = 24  # pixels above them
_GAP = 2


def sheet(conditions: Sequence[str], seed: int, size: int, count: int, camera: Camera = PLAIN) -> Image.Image:
    """A contact sheet: one row per condition, `count` lesions for each skin type side by side.

    Args:
        conditions: names of `CONDITIONS`.
        seed: of the lesions.
        size: of one picture, in pixels.
        count: lesions of a condition on skin of one type.
        camera: the optics.

    Raises:
        DataError: if a condition is unknown or a number makes no sense.
    """
    pitch, group = size + _GAP, count * (size + _GAP) + 3 * _GAP
    page = Image.new("RGB", (_CAPTION + group * len(SKIN_TONES), _TITLE + pitch * len(conditions)), "white")
    pen = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(15), ImageFont.load_default(14)
    for column, tone in enumerate(SKIN_TONES):
        pen.text((_CAPTION + group * column, 3), f"skin type {tone}", fill="black", font=large)
    for row, condition in enumerate(conditions):
        top = _TITLE + pitch * row
        pen.multiline_text((6, top + size // 3), "\n".join(wrap(condition, 16)), fill="black", font=small)
        for column, tone in enumerate(SKIN_TONES):
            only = {other: float(other == tone) for other in SKIN_TONES}
            number = seed + len(SKIN_TONES) * row + column
            source = PhantomSource(count, number, size, [condition], tones=only, camera=camera)
            for place, sample in enumerate(source):
                page.paste(source.image(sample.images[0]), (_CAPTION + group * column + pitch * place, top))
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and write the sheet."""
    parser = Program(prog="python -m dermiq.datamodules.phantom", description="Render a sheet of synthetic lesions.")
    parser.add_argument("--preview", type=Path, required=True, metavar="FILE", help="the sheet to write, a PNG")
    parser.add_argument("--seed", type=int, default=0, help="of the lesions")
    parser.add_argument("--size", type=int, default=96, help="of one picture, in pixels")
    parser.add_argument("--count", type=int, default=2, help="lesions of a condition on skin of one type")
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), metavar="NAME", help="default: all")
    parser.add_argument("--cast", type=float, nargs=3, default=PLAIN.cast, help="of the camera: red, green, blue")
    parser.add_argument("--contrast", type=float, default=PLAIN.contrast, help="of the camera")
    parser.add_argument("--softness", type=float, default=PLAIN.softness, help="of the camera: its blur")
    parser.add_argument("--noise", type=float, default=PLAIN.noise, help="of the camera")
    options = parser.parse_args(arguments)
    camera = Camera(tuple(options.cast), options.contrast, options.softness, options.noise)
    options.preview.parent.mkdir(parents=True, exist_ok=True)
    sheet(options.conditions, options.seed, options.size, options.count, camera).save(options.preview)


if __name__ == "__main__":
    main()
