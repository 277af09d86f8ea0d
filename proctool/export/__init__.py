"""Export of models as Hugging Face folders with a model card, and as weights for other projects."""
