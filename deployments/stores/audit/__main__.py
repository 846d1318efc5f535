"""Proves the log of the environment's installation, and prints what was found as JSON."""

import os
import sys
from dataclasses import asdict

import orjson

from deployments.config import AuditArgs, Settings
from deployments.stores.audit.log import open_audit


def main() -> None:
    """Prove, without taking the processor from who answers requests."""
    os.nice(10)
    log = open_audit(Settings(), AuditArgs())
    sys.stdout.buffer.write(orjson.dumps(asdict(log.verify())))
    log.close()


if __name__ == "__main__":
    main()
