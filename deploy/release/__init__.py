"""`make release`: what a host gets, made once out of a committed state and never changed again."""
