"""Daily GMV by subsidiary, in double entry, from late, repeated and corrected purchase events."""
