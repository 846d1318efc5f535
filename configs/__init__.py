"""Data that ships with the packages: profiles, pinned models, the edge. No code."""
