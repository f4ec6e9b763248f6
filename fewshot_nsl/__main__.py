"""`python -m fewshot_nsl` is `fewshot-nsl`."""

from fewshot_nsl.cli import main

main()
