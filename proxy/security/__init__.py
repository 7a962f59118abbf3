"""Masking of secrets, error pages, and body limits of our own pages."""
