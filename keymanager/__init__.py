"""The Django project around `proxy`: settings, addresses, and how servers reach them."""

__version__ = "1.0.0"
"""The last release, as in pyproject.toml and CHANGELOG.md; a test compares the first two."""
