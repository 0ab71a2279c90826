"""How each family of networks is built, and which of its modules form which layer group."""
