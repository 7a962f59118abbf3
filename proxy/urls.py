"""Dashboard, health, and the catch-all route of the relay, which comes last."""

from django.urls import path, re_path
from django.views.generic import RedirectView

from proxy import views

app_name = "proxy"
urlpatterns = [
    path("dashboard/", views.dashboard, name="dashboard"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    re_path(r"^(?P<page>admin|dashboard)$", RedirectView.as_view(url="/%(page)s/")),
    re_path(r"^(?!(?:admin|dashboard|static)/)", views.relay_view, name="relay"),
]
