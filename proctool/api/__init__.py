"""The Python API: the functions that `import proctool` offers. `proctool.torch` and `proctool.hf` stand beside it."""
