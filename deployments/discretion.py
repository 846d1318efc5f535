"""What Serve logs of requests that fail: an exception's message may hold what a caller has said."""

import logging
import traceback

from deployments.errors import RagError

SERVE = "ray.serve"


class Discretion(logging.Filter):
    """Drops what the caller is told as our own error; of the rest, keeps class and code lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged; one with an exception loses its message."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        if isinstance(error, RagError):
            return False
        lines = "".join(traceback.format_tb(error.__traceback__))
        record.msg = f"{record.getMessage()} {type(error).__qualname__}\n{lines}"
        record.args, record.exc_info, record.exc_text = (), None, None
        return True


def be_discreet() -> None:
    """Have Serve's log of this process be so; more than once changes nothing."""
    log = logging.getLogger(SERVE)
    if not any(isinstance(one, Discretion) for one in log.filters):
        log.addFilter(Discretion())
