"""Reading long bodies without blocking other requests. Pure functions, no Django."""
