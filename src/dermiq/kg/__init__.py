"""The knowledge graph: an ontology of skin conditions, by which answers are scored and facts are retrieved."""

from dermiq.kg.consistency import ReasoningConsistency, TypicalDescription
from dermiq.kg.graph import Citation, Concept, Fact, KnowledgeGraph
from dermiq.kg.ontology.loading import load_graph
from dermiq.kg.pairs import PairMaker, Pairs
from dermiq.kg.readers.language_model import LanguageModelReader
from dermiq.kg.retrieval import Passage, Retriever
from dermiq.kg.rewards import KGContradiction, KGCoverage, KGHarm, KGPrecision
from dermiq.kg.scorer import JudgedClaim, KGScore, KGScorer
from dermiq.kg.terminology import Terminology

__all__ = [
    "Citation",
    "Concept",
    "Fact",
    "JudgedClaim",
    "KGContradiction",
    "KGCoverage",
    "KGHarm",
    "KGPrecision",
    "KGScore",
    "KGScorer",
    "KnowledgeGraph",
    "LanguageModelReader",
    "PairMaker",
    "Pairs",
    "Passage",
    "ReasoningConsistency",
    "Retriever",
    "Terminology",
    "TypicalDescription",
    "load_graph",
]
