"""The page, the JSON and the metrics of one broker: a collector that keeps history, and a server that shows it."""
