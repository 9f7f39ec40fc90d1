#!/usr/bin/env python
"""Install Detectron2 0.6, also before this project is; --help says more."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "projects"))

from vfnet_yolof.installer.install import main

if __name__ == "__main__":
    sys.exit(main())
