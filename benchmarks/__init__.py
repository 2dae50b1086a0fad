"""Benchmarks of opsq through its installed command, beside Celery and a bare loop of the same scripts."""
