"""The app, with its system checks."""

import django_stubs_ext
from django.apps import AppConfig
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries
from django.utils.translation import gettext_lazy

# Allows type parameters of Django's classes, such as ModelAdmin[ApiKey].
django_stubs_ext.monkeypatch()


class ProxyConfig(AppConfig):
    name = "proxy"
    verbose_name = gettext_lazy("Gemini keys")

    def ready(self) -> None:
        # Both check all connections when a request starts. Ours are closed when it ends, and queries are not logged,
        # so they find nothing, and took 3 % of the relay's time.
        request_started.disconnect(close_old_connections)
        request_started.disconnect(reset_queries)
        from proxy import checks  # noqa: F401, PLC0415  # registers them
