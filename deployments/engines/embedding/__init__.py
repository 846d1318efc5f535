"""Embedding engines behind one protocol (``base.py``)."""
