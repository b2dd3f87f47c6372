"""`python -m dovetail`"""

from __future__ import annotations

from dovetail.cli import main

main(prog_name="dovetail")
