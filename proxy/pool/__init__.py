"""The keys: reading, adding and checking them, and what people do with them."""
