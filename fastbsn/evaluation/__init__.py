"""Synthetic noise, metrics, data sets and benchmark submissions."""
