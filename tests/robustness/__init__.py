"""Hostile files, faults, and the promises of docs/guarantees.md."""
