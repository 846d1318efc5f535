"""The help of a command, from its docstring."""

import inspect
from collections.abc import Callable


def help_of(command: Callable[..., None]) -> str:
    """Return the docstring, its examples marked so that their lines are not joined.

    Source: click's documentation, "Preventing Rewrapping": a line that holds only a backspace.
    """
    return (inspect.getdoc(command) or "").replace("\n\nExamples:", "\n\n\b\nExamples:")
