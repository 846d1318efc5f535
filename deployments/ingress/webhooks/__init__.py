"""Telling others that a task has ended: signed, to where it may be told, until it is heard."""
