"""One HTTP exchange with the upstream. No Django."""
