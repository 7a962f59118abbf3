"""Keys: reading key files, adding and checking keys, and actions on them."""
