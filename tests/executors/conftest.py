"""The decoder's own helpers serve here too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "decoder"))
