"""The report: its numbers (data), its figures, its tables and sentences (show), and the page.

Everything is read through `gmv.lake.reader.Reader`; nothing here writes into the lake.
"""
