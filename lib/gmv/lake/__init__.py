"""The only place that reads and writes tables, starts Spark and holds the lake's lock."""
