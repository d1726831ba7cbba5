"""`python -m ponticello`, and the module that `torchrun -m ponticello train ...` starts."""

from ponticello.cli.main import main

main()
