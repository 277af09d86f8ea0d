"""`proctool search`: which warm-up, if any, helps on a corpus and a model; measured on small models of its family."""
