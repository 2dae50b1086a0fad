"""Apps and workers for the tests of programs; its modules are imported by name, as Celery's."""
