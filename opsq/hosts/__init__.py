"""Host batches: signed orders to the hosts' agents, and what came of them; its modules are imported by name."""
