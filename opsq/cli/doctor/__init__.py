"""What `opsq doctor` looks at: one function a check, in one table."""

from opsq.cli.doctor.finding import Check, Finding, Look
from opsq.cli.doctor.table import CHECKS, NEEDS_BROKER

__all__ = ["CHECKS", "NEEDS_BROKER", "Check", "Finding", "Look"]
