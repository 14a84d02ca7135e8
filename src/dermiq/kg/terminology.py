"""Terminology of conditions: identifiers, synonyms, ancestors, malignancy."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.ontology.loading import load_graph


class Terminology:
    """Look-up of conditions by the names in answers and labels.

    Args:
        ontology: RDF/XML file; None takes the one that comes with the package.
    """

    def __init__(self, ontology: str | None = None) -> None:
        self.ontology = ontology

    @cached_property
    def graph(self) -> KnowledgeGraph:
        """The knowledge graph, loaded on first use."""
        return load_graph(None if self.ontology is None else Path(self.ontology))

    def concept(self, name: str) -> str | None:
        """The identifier of the condition with that name or synonym; None if the ontology has none."""
        found = self.graph.lookup(name)
        return found.id if found else None

    def names(self, concept: str) -> tuple[str, ...]:
        """The name and the synonyms of a concept."""
        return self.graph.concepts[concept].names

    def lineage(self, concept: str) -> frozenset[str]:
        """A condition and its ancestors, with their categories and the ancestors of these."""
        graph = self.graph
        conditions = {concept, *graph.ancestors[concept]}
        categories = {
            fact.value
            for condition in conditions
            for fact in graph.about(condition, "category")
            if fact.strength in ("always", "typical")
        }
        return frozenset(conditions | categories).union(*(graph.ancestors[category] for category in categories))

    def malignant(self, concept: str) -> bool | None:
        """True for cancer, False for benign and pre-malignant conditions, None if the ontology has no value."""
        values = {fact.value for fact in self.graph.about(concept, "malignancy") if fact.positive}
        return "malignant" in values if values else None
