"""The tables of settings; one module a table."""
