"""What is built on top of opsq for programs and their tests; its modules are imported by name."""
