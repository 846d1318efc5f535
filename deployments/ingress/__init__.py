"""The HTTP surface: identify, limit, validate, call the graph, encode."""
