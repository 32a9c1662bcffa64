"""The tests, a package because schwab-py installs one of the same name that would hide it."""
