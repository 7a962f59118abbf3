"""Dashboard, health, and the catch-all route of the relay, which comes last."""

from django.urls import path, re_path
from django.views.generic import RedirectView

from proxy import views
from proxy.pages.activity import activity
from proxy.pages.exhaustion import exhaustion
from proxy.pages.health import health
from proxy.pages.key import key
from proxy.pages.keys import keys
from proxy.pages.models import models
from proxy.pages.overview import overview
from proxy.pages.requests import requests

app_name = "proxy"
urlpatterns = [
    path("dashboard/", overview, name="overview"),
    path("dashboard/keys/", keys, name="keys"),
    path("dashboard/keys/<int:key_id>/", key, name="key"),
    path("dashboard/exhaustion/", exhaustion, name="exhaustion"),
    path("dashboard/models/", models, name="models"),
    path("dashboard/requests/", requests, name="requests"),
    path("dashboard/activity/", activity, name="activity"),
    path("dashboard/health/", health, name="health"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("dashboard", RedirectView.as_view(pattern_name="proxy:overview")),
    re_path(r"^(?!(?:admin|dashboard|static)/)", views.relay_view, name="relay"),
]
