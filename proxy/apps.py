"""The app, with its system checks."""

from django.apps import AppConfig


class ProxyConfig(AppConfig):
    name = "proxy"
    verbose_name = "Gemini keys"

    def ready(self) -> None:
        from proxy import checks  # noqa: F401, PLC0415  # registers them
