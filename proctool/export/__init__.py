"""Models as Hugging Face folders, with a card of what they were made from."""
