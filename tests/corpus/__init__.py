"""Hostile files, each with what must become of it: declared once, in `corpus.cases`."""
