"""Models of other projects, rebuilt from their definitions, and what is carried into and out of them."""
