"""How a pretrained network is adapted: strategies as a table, and what each does to the layer groups of a network."""
