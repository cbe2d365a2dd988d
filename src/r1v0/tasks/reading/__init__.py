"""Datasets in files and on the hub: rows of text."""
