"""Runtime floor room; its modules are imported by name."""
