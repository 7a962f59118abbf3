"""The dashboard: a view for each page. They read the address, ask `reports`, and answer with HTML, CSV or JSON."""
