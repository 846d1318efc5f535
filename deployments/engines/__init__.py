"""Engines compute in process. They know nothing of Ray, HTTP or where state is kept."""
