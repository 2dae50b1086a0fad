"""What Tab completes: the tree of commands as shells get it, one writer a shell, and the words that only we know."""
