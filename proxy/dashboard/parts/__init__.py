"""The parts of pages: tables, charts, filters, links."""
