"""How pages word what the rows hold."""

from django import template

from proxy.models import NO_MODEL

register = template.Library()


@register.filter
def model_name(name: str) -> str:
    """Return a model's name as people read it; calls that name none have a word of their own."""
    return "(no model)" if name == NO_MODEL else name
