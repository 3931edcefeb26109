"""`own_disk.py RANK FOLDER WORD...`: `ptycho WORDS` as one process of several, for which FOLDER is on a disk
of 40 kB of its own where it is process RANK: as on another machine. Needs the rights to mount."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

from ptycho.cli.main import main

#: CLONE_NEWNS of linux/sched.h: what is mounted from now on is seen by this process only
_OWN_MOUNTS = 0x00020000

rank, folder = sys.argv[1:3]
if os.environ["RANK"] == rank:
    if ctypes.CDLL(None, use_errno=True).unshare(_OWN_MOUNTS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", folder], check=True)
sys.exit(main(sys.argv[3:]))
