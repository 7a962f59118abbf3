"""Reading long bodies without holding up other requests. Pure functions, no Django."""
