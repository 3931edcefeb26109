"""`python -m ptycho`, for launchers that start a module: `torchrun --nproc-per-node 2 -m ptycho infer`."""

from ptycho.cli.main import console_main

console_main()
