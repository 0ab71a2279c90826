"""Networks, and the passports of the weights that they start from."""
