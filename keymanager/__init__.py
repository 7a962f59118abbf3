"""The Django project around `proxy`: settings, URLs, and the WSGI application."""

__version__ = "1.0.0"
"""The latest release, as in pyproject.toml and CHANGELOG.md. A test compares it with pyproject.toml."""
