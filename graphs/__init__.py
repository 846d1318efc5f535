"""Composition: which replicas a request visits, in which order, and what they hand each other."""
