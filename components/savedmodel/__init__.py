"""A SavedModel on disk: weights, graph, files and versions, read without trusting their writer."""
