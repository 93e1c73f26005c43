"""The command ``deepfixcx``.

Every command imports what it needs when it runs, so that ``deepfixcx --help`` answers at once.
"""

from monai_deepfixcx.cli import stores, evidence, machine  # isort: skip  # in the order of --help
from monai_deepfixcx.cli.base import app, main

__all__ = ["app", "evidence", "machine", "main", "stores"]
