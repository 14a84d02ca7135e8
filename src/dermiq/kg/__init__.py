"""The knowledge graph: an ontology of skin conditions that judges answers and grounds them."""

from dermiq.kg.graph import Citation, Concept, Fact, KnowledgeGraph
from dermiq.kg.loading import load_graph
from dermiq.kg.scorer import JudgedClaim, KGScore, KGScorer

__all__ = ["Citation", "Concept", "Fact", "JudgedClaim", "KGScore", "KGScorer", "KnowledgeGraph", "load_graph"]
