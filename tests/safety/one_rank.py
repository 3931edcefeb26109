"""`one_rank.py RANK BYTES WORD...`: `ptycho WORDS` as one process of several, whose files may not grow beyond
BYTES where it is process RANK: as a full disk of that machine."""

from __future__ import annotations

import os
import resource
import sys

from ptycho.cli.main import main

rank, most = sys.argv[1:3]
if os.environ["RANK"] == rank:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
sys.exit(main(sys.argv[3:]))
