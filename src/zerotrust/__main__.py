"""`python -m zerotrust` is `zerotrust`."""

from zerotrust.cli import main

main()
