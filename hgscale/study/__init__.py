"""The cells of a study, and what they say together. Torch-free."""
