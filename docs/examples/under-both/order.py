"""Sends an order and prints the bill."""

from shop import order

print(order("Ada", {"tea": 2, "cup": 1}).get(timeout=30))
