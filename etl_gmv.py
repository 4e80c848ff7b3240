"""The daily GMV pipeline: `python etl_gmv.py --start-date 2023-02-01 --end-date 2023-02-28` is `gmv run …`."""

import sys

from gmv.cli import main

sys.argv[1:1] = ["run"]
main()
