"""Logging what nobody expected: where it happened, never what was being worked on."""

import logging
import traceback

log = logging.getLogger("ray.serve")


def log_fault(exc: BaseException, request_id: str = "-") -> None:
    """Log an unexpected exception: its class and code lines; its message may hold content."""
    lines = "".join(traceback.format_tb(exc.__traceback__))
    log.error("request %s failed: %s\n%s", request_id, type(exc).__qualname__, lines)
