"""`python -m cli`, which the `kite` launcher calls."""

from cli.commands import main

main()
