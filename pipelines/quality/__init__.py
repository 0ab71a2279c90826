"""Guarding the data: expectations and their Data Docs, the partition into parts, and the leakage certificate."""
