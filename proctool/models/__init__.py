"""Language models: shapes and presets, building, saving, and what each parameter is for."""
