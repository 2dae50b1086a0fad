"""Stores room: what workers and publishers tell about themselves and their tasks; its modules are imported by name."""
