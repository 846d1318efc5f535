"""The one failure the command line shows as a line instead of a traceback."""


class OperatorError(Exception):
    """Something an operator can act on: printed as one line on stderr, then the exit code."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
