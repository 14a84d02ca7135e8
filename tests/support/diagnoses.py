"""Samples, answers and a judge on a terminology of seven conditions, small enough to count by hand."""

from dataclasses import replace

from dermiq.metrics import Judge
from dermiq.prompts import choice_question, parse, ways_to_choose
from dermiq.schema import Sample

NEVUS = Sample(
    id="1", images=(), target="nevus", label="nv", group="1", synonyms=("mole",), concepts=("nevus",), dataset="toy"
)


MELANOMA = replace(NEVUS, target="melanoma", label="mel", synonyms=(), concepts=("melanoma",))


LUMP = replace(NEVUS, target="keratosis", label="bkl", synonyms=("lentigo", "wart"), concepts=("keratosis", "lentigo"))


BROADER = replace(NEVUS, target="rare nevus", synonyms=(), concepts=("nevus",))


LINEAGES = {
    "melanoma": ("melanocytic", "tumour"),
    "ssm": ("melanoma", "melanocytic", "tumour"),
    "nevus": ("benign", "melanocytic", "tumour"),
    "halo_nevus": ("nevus", "benign", "melanocytic", "tumour"),
    "keratosis": ("benign", "tumour"),
    "lentigo": ("benign", "tumour"),
    "psoriasis": ("inflammatory",),
}


NAMES = {"mole": "nevus", "superficial spreading melanoma": "ssm", "halo nevus": "halo_nevus"}


class Tree:
    """A terminology of seven conditions and what lies above each."""

    def concept(self, name):
        found = NAMES.get(name, name)
        return found if found in LINEAGES else None

    def names(self, concept):
        return {found: name for name, found in NAMES.items() if name != "mole"}.get(concept, concept), "synonym"

    def lineage(self, concept):
        return frozenset({concept, *LINEAGES.get(concept, {"benign": ("tumour",)}.get(concept, ()))})

    def malignant(self, concept):
        return None if concept == "psoriasis" else concept in ("melanoma", "ssm")


JUDGE = Judge(Tree())


def answer(name):
    return parse(f"<think></think><answer>{name}</answer>") if name else parse("?")


def choice(right):
    options = ("melanoma", "nevus", "psoriasis")
    ways = ways_to_choose(options, right)
    return replace(
        NEVUS, kind="choice", options=options, question=choice_question(options), target=ways[0], synonyms=ways[1:]
    )
