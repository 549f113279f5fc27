"""Engines that spread work over machines; each is imported by its own name, when it is installed."""
