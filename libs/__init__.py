"""Code that more than one service stands on."""
