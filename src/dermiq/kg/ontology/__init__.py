"""The ontology: from tables to OWL, from OWL to the graph, validated and extended."""
