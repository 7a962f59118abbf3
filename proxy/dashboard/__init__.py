"""The dashboard: views, the parts that they are made of, and reports."""
