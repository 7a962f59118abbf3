"""What keeps secrets out of sight: masking, error pages, limits for bodies of our own pages."""
