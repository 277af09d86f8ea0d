"""Hostile input on purpose: files made to harm, and random damage to good ones. See docs/guarantees.md."""
