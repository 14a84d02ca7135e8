"""The appearance of a condition: a probability for each value of `dermiq.findings`, from the ontology's facts.

One rule for all conditions. The weight of a value is that of the strongest fact that implies it (`WEIGHTS`). The
unremarkable value of an attribute (`DEFAULTS`) has at least the weight `UNREMARKABLE`, unless the ontology denies it.
The weights of an attribute are divided by their sum, so an attribute without a fact that can be rendered has its
default alone. The probabilities keep the order of what is typical; they are no frequencies observed in patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dermiq.findings import ATTRIBUTE_OF, ATTRIBUTES
from dermiq.kg.graph import KnowledgeGraph

RELATIONS = ("site", "distribution", "morphology", "secondary_morphology", "colour", "dermoscopy")
WEIGHTS: Mapping[str, float] = MappingProxyType({"always": 3.0, "typical": 2.0, "possible": 0.5})
UNREMARKABLE = 1.0
TYPICAL = 0.2
DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "site": "trunk",
        "distribution": "solitary",
        "morphology": "macule",
        "colour": "skin-coloured",
        "border": "regular",
        "surface": "smooth",
        "structure": "structureless",
    }
)
_ALWAYS_POSSIBLE = ("distribution", "border", "surface", "structure")  # the default is possible in every lesion

# Concept -> the value that shows it; a concept without an entry shows as the nearest above it in its tree that has one.
VALUES: Mapping[str, str] = MappingProxyType(
    {
        # sites
        "trunk": "trunk",
        "armpit": "trunk",
        "groin": "trunk",
        "limbs": "limb",
        "head_and_neck": "face",
        "scalp": "scalp",
        "hand": "acral",
        "foot": "acral",
        "acral": "acral",
        # arrangement
        "solitary": "solitary",
        "grouped": "grouped",
        "multiple": "scattered",
        "scattered": "scattered",
        "generalised": "scattered",
        "annular": "annular",
        "central_clearing": "annular",
        # the basic lesion
        "macule": "macule",
        "patch": "patch",
        "herald_patch": "patch",
        "papule": "papule",
        "plaque": "plaque",
        "nodule": "nodule",
        "tumour_mass": "nodule",
        "vesicle": "vesicle",
        # colours
        "brown": "brown",
        "tan": "tan",
        "grey_brown": "brown",
        "black": "black",
        "variegated": "variegated",
        "pink": "pink",
        "red": "red",
        "purple": "purple",
        "white": "white",
        "pale": "white",
        "pearly": "pearly",
        "skin_coloured": "skin-coloured",
        # border
        "sharply_defined_border": "regular",
        "irregular_border": "irregular",
        "ill_defined_border": "diffuse",
        "rolled_border": "rolled",
        # surface
        "smooth_surface": "smooth",
        "shiny_surface": "shiny",
        "scale": "scaly",
        "warty_surface": "warty",
        "crust": "crusted",
        "ulceration": "ulcerated",
        "umbilication": "umbilicated",
        # structure under the dermatoscope
        "structureless_areas": "structureless",
        "orange_structureless_areas": "structureless",
        "homogeneous_red_area": "structureless",
        "pigment_network": "network",
        "globules": "globules",
        "irregular_dots_and_globules": "globules",
        "blue_grey_globules": "globules",
        "streaks": "streaks",
        "milia_like_cysts": "cysts",
        "central_white_scar_like_patch": "scar",
        "lacunae": "lacunae",
        "arborising_vessels": "vessels",
        "short_fine_telangiectasia": "vessels",
        "atypical_vessels": "vessels",
        "dotted_vessels": "dots",
        "glomerular_vessels": "dots",
        "strawberry_pattern": "strawberry",
        "rosettes": "rosettes",
        "white_network": "striae",
        "central_keratin_mass": "keratin",
        "white_circles": "keratin",
        "central_white_yellow_structure": "lobules",
        "papillary_pattern_with_thrombosed_capillaries": "thrombi",
    }
)


def appearance(graph: KnowledgeGraph, condition: str) -> dict[str, dict[str, float]]:
    """Attribute -> value of `dermiq.findings` -> probability; the sum over an attribute is 1.

    Args:
        graph: where the facts come from.
        condition: its name, a synonym, an identifier or an xref.

    Raises:
        KnowledgeError: if the graph has no such condition.
    """
    weights: dict[str, dict[str, float]] = {attribute: {} for attribute in ATTRIBUTES}
    denied = set()
    for fact in (fact for relation in RELATIONS for fact in graph.about(graph.find(condition).id, relation)):
        value = _value(graph, fact.value)
        if not fact.positive:
            denied.add(VALUES.get(fact.value))
        elif value is not None and fact.strength in WEIGHTS:  # what is rare is not drawn
            of = weights[ATTRIBUTE_OF[value]]
            of[value] = max(of.get(value, 0.0), WEIGHTS[fact.strength])
    for attribute, of in weights.items():
        default = DEFAULTS[attribute]
        if not of or (attribute in _ALWAYS_POSSIBLE and default not in denied):
            of[default] = max(of.get(default, 0.0), UNREMARKABLE)
    return {
        attribute: {value: weight / sum(of.values()) for value, weight in of.items()}
        for attribute, of in weights.items()
    }


def typical(graph: KnowledgeGraph, condition: str) -> dict[str, tuple[str, ...]]:
    """Attribute -> the values typical of a condition (probability of at least 0.2), most probable first.

    Raises:
        KnowledgeError: if the graph has no such condition.
    """
    return {
        attribute: tuple(value for value, share in sorted(of.items(), key=lambda item: -item[1]) if share >= TYPICAL)
        for attribute, of in appearance(graph, condition).items()
    }


def _value(graph: KnowledgeGraph, concept: str) -> str | None:
    """The value of a concept, or of the nearest above it that has one."""
    level = [concept]
    while level:
        for name in level:
            if name in VALUES:
                return VALUES[name]
        level = [parent for name in level if name in graph.concepts for parent in graph.concepts[name].broader]
    return None
