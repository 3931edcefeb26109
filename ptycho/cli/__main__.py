"""`python -m ptycho.cli`, for places where the installed script is not on the path."""

from ptycho.cli.main import console_main

console_main()
