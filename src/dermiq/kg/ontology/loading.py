"""Loading of the knowledge graph from OWL files, with a cache of pickled graphs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dermiq.kg.graph import KnowledgeGraph, merged
from dermiq.kg.ontology.owl import read_bytes, read_graph
from dermiq.kg.ontology.validation import validate
from dermiq.schema import KnowledgeError

ONTOLOGY = Path(__file__).parents[1] / "dermiq.owl"
_FORMAT = 1  # raise it when the pickled classes change


def load_graph(ontology: Path | None = None, merge: Iterable[Path] = ()) -> KnowledgeGraph:
    """The graph of an OWL file, with others merged on top of it.

    Args:
        ontology: RDF/XML, plain or gzipped; None takes the one that comes with the package.
        merge: further files; see `dermiq.kg.graph.merged`.

    Raises:
        KnowledgeError: if a file cannot be read as an ontology of DermIQ's vocabulary, or fails the validation.
    """
    graphs = [_load(Path(path)) for path in (ontology or ONTOLOGY, *merge)]
    graph = graphs[0] if len(graphs) == 1 else merged(graphs)
    if ontology is not None or len(graphs) > 1:
        _check(graph)
    return graph


def _check(graph: KnowledgeGraph) -> None:
    errors = [finding for finding in validate(graph) if finding.error]
    if errors:
        raise KnowledgeError(
            f"The ontology has {len(errors)} errors, the first of them {errors[0].where}: {errors[0].message}. "
            "All of them: `python -m dermiq.kg validate FILE`, or `validate --merge FILE` for one that is laid on top."
        )


def cache_directory() -> Path:
    """The directory of cached graphs: ``$XDG_CACHE_HOME/dermiq`` or ``~/.cache/dermiq``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "dermiq"


def _load(path: Path) -> KnowledgeGraph:
    data = read_bytes(path)
    cached = cache_directory() / f"graph-{_FORMAT}-{hashlib.sha256(data).hexdigest()}.pickle"
    try:
        graph = pickle.loads(cached.read_bytes())
        if isinstance(graph, KnowledgeGraph):
            return graph
    except Exception:  # absent or damaged, in whatever way: made anew below
        pass
    graph = read_graph(data, str(path))
    _keep(graph, cached)
    return graph


def _keep(graph: KnowledgeGraph, path: Path) -> None:
    """Write a graph to the cache, whole or not at all; without a writable cache it is not kept."""
    graph.by_name, graph.ancestors, graph.facts_of("")  # computed here, and pickled with it
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            pickle.dump(graph, file, protocol=pickle.HIGHEST_PROTOCOL)
        Path(file.name).replace(path)
