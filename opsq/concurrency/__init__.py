"""How one process runs many tasks at once: threads, asyncio, greenlets. Its modules are imported by name."""
