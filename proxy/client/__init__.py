"""What a client sends, and the errors that we answer with."""
