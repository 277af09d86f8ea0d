"""What a model can do: diagnostics trained from an init, and loss on a corpus."""
