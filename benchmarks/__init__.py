"""Benchmarks: programs that measure the installed command against the limit and against Celery, in one run."""
