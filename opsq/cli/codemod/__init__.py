"""What `opsq migrate-code` knows and does; its modules are imported by name."""
