"""Text generation engines behind one protocol (``base.py``)."""
