"""A run: the notebooks in order under one lock, on one Spark server, with one record."""
