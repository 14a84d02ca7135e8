"""SkinCAP: photographs of Fitzpatrick17k and DDI with captions by dermatologists.

    root/skincap_v240623.csv
    root/skincap/1.png ...

Source: https://huggingface.co/datasets/joshuachou/SkinCAP. Licence: contradictory. The repository of its code says
CC BY 4.0, the agreement for its download non-commercial research only, no redistribution and no derivatives, and the
photographs keep the terms of their data sets: the strictest are kept to. Citation: J. Zhou et al., "SkinCAP: A
Multi-modal Dermatology Dataset Annotated with Rich Medical Captions", arXiv:2405.18004 (2024). 4,000 photographs, 3,345
of Fitzpatrick17k and 655 of DDI, with the 187 labels of the two; 439 are marked `Do not consider this image`.

A caption describes and then says what it is, or what to do about it. Only the description becomes the reference
reasoning: up to the last end of a clause before the first word of diagnosis or management, or name of a condition. A
caption of which less than five words remain gives none. Original file names tie each photograph to its data set.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

from dermiq.datamodules.sources.reading.card import DataCard, Meaning, load_card
from dermiq.datamodules.sources.reading.csv_rows import Row, read_table
from dermiq.datamodules.sources.reading.labels import condition_names
from dermiq.datamodules.sources.reading.photographs import Photographs, Record
from dermiq.datamodules.sources.reading.skin_types import fitzpatrick
from dermiq.schema import DataError, SkinType

METADATA = "skincap_v240623.csv"
FOLDER = "skincap"
FLAG = "Do not consider this image"
CAPTION = "caption_zh_polish_en"
COLUMNS = ("id", "skincap_file_path", "ori_file_path", "disease", CAPTION, FLAG)
HINT = "Give `root` the folder with skincap_v240623.csv and the folder skincap/ of the photographs."
LEAST_WORDS = 5

_CONCLUSION = re.compile(
    r"\b(?:diagnos|differential|suggest|indicat|consistent with|compatible with|consider(?!abl)|suspect|likel|probab|"
    r"possib|may be|might be|could be|typical of|typical for|characteristic of|resembl|confirm|rule out|exclud|"
    r"known as|disease|condition|disorder|syndrome|benign|malignan|cancer|tumou?r|infect|caused by|due to|"
    r"recommend|treat|therap|medical|medicat|surgery|surgical|biops|patholog|histolog|laborator|tests?\b|"
    r"evaluat|consult|doctor|hospital|should|needs?\b|necessary|require|further|follow-up)",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[.,;:](?=\s|$)")
_LOOSE_END = re.compile(
    r"(?:[\s,;:]+(?:and|or|but|with|which|that|is|are|this|it|these|they|the|a|so))+$", re.IGNORECASE
)
_FITZPATRICK17K = re.compile(r"[0-9a-f]{32}")
_DDI = re.compile(r"\d{6}")


class SkinCAP(Photographs):
    """The photographs of SkinCAP with the diagnosis to name, and their description as reference reasoning.

    Args:
        root: the folder that holds the metadata file and the folder ``skincap``.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    card_name = "skincap"

    @cached_property
    def card(self) -> DataCard:
        """Its card, with the labels of the two data sets."""
        cards = Path(__file__).parent / "cards"
        return super().card.with_labels_of(load_card(cards / "fitzpatrick17k.yaml"), load_card(cards / "ddi.yaml"))

    def records(self) -> Iterator[Record]:
        """One record per row of the metadata, but for those flagged."""
        rows = read_table(self.root / METADATA, COLUMNS, HINT)
        kept = [row for row in rows if row.known(FLAG).removesuffix(".0") != "1"]
        logging.getLogger(__name__).info("%s: left out %d rows with %r.", METADATA, len(rows) - len(kept), FLAG)
        for row in kept:
            file = Path(row.required("skincap_file_path")).name
            links = _links(row)
            yield Record(
                id=f"skincap-{row.required('id')}",
                images=(str(self.root / FOLDER / file),),
                label=row["disease"],
                group=links[0],
                links=links,
                reasoning=description(row[CAPTION], self.card.meaning(row["disease"], row.where)),
                skin_type=_skin_type(row),
                where=row.where,
            )


def description(caption: str, meaning: Meaning) -> str | None:
    """The part of a caption that describes, without diagnosis and management; None if it is too short.

    >>> psoriasis = Meaning("psoriasis", ())
    >>> description("Well-defined red plaques with silvery scale on both knees, which suggests psoriasis.", psoriasis)
    'Well-defined red plaques with silvery scale on both knees.'
    """
    own = _any_of(meaning.target, *meaning.synonyms)
    conclusions = (_CONCLUSION.search(caption), _conditions().search(caption), own.search(caption))
    first = min((found.start() for found in conclusions if found), default=len(caption))
    said = caption[:first]
    if first < len(caption):
        ends = [found.start() for found in _CLAUSE_END.finditer(said)]
        said = said[: ends[-1]] if ends else ""
    said = " ".join(_LOOSE_END.sub("", said.rstrip(" .,;:")).split())
    return f"{said}." if len(said.split()) >= LEAST_WORDS else None


@cache
def _conditions() -> re.Pattern[str]:
    """The names of all conditions of the ontology."""
    return _any_of(*condition_names())


@cache
def _any_of(*names: str) -> re.Pattern[str]:
    """Any of some names, in whatever case, hyphenated or not, in singular or plural."""
    spelt = (r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", name))) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"\b(?:{'|'.join(spelt)})(?:e?s)?\b", re.IGNORECASE)


def _links(row: Row) -> tuple[str, ...]:
    """What ties a photograph to the data set that it comes from."""
    file = Path(row.required("ori_file_path")).name
    stem = file.rsplit(".", 1)[0]
    if _FITZPATRICK17K.fullmatch(stem):
        return (f"fitzpatrick17k:{stem}", f"md5:{stem}")
    if _DDI.fullmatch(stem):
        return (f"ddi:{stem}.png",)
    raise DataError(
        f"{row.where}: 'ori_file_path' is {file!r}, a file neither of Fitzpatrick17k nor of DDI. "
        "Correct or remove the row: without it a split could not keep both copies on one side."
    )


def _skin_type(row: Row) -> SkinType | None:
    """As the data set has it that the photograph comes from."""
    return fitzpatrick(row, "fitzpatrick_scale", "crowd") or fitzpatrick(row, "skin_tone", "rated")
