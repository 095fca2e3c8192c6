"""placeholder"""

from pathlib import Path


def report(context) -> Path:
    return context.output.report
