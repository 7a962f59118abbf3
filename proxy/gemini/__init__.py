"""Knowledge of Google's API: paths, models, refusals, token counts, quota days. Pure functions, no Django."""
