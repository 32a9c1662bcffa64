"""The tests. A package, because schwab-py installs one of the same name that would hide ours.

The folders below need none: pytest imports by file path.
"""
