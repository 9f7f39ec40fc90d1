#!/usr/bin/env python
"""Write configs/MODEL_ZOO.md and PUBLISHED.md anew from the configs and what is published.

python tools/make_model_zoo.py            # takes a minute or two
python tools/make_model_zoo.py --check    # exit status 1 if one is not current
"""

from vfnet_yolof.cli.main import console
from vfnet_yolof.cli.reports import model_zoo_tool

if __name__ == "__main__":
    console(lambda: model_zoo_tool(__doc__))
