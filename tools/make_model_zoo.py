#!/usr/bin/env python
"""Write configs/MODEL_ZOO.md anew from the configs and the table of what is published.

python tools/make_model_zoo.py            # takes about a minute
python tools/make_model_zoo.py --check    # exit status 1 if it is not current
"""

import sys

from vfnet_yolof.analysis.model_zoo_page import command_line

if __name__ == "__main__":
    sys.exit(command_line(__doc__))
