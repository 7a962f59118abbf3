"""Dashboard, health, and the catch-all route of the relay, which comes last."""

import re

from django.conf import settings
from django.urls import path, re_path
from django.views.generic import RedirectView

from proxy import views
from proxy.dashboard.views.activity import activity
from proxy.dashboard.views.exhaustion import exhaustion
from proxy.dashboard.views.health import health
from proxy.dashboard.views.key_detail import key_detail
from proxy.dashboard.views.key_list import key_list
from proxy.dashboard.views.model_list import model_list
from proxy.dashboard.views.overview import overview
from proxy.dashboard.views.request_log import request_log

_OWN = "|".join(re.escape(prefix.removeprefix("/")) for prefix in settings.OWN_PREFIXES)

app_name = "proxy"
urlpatterns = [
    path("dashboard/", overview, name="overview"),
    path("dashboard/keys/", key_list, name="keys"),
    path("dashboard/keys/<int:key_id>/", key_detail, name="key"),
    path("dashboard/exhaustion/", exhaustion, name="exhaustion"),
    path("dashboard/models/", model_list, name="models"),
    path("dashboard/requests/", request_log, name="requests"),
    path("dashboard/activity/", activity, name="activity"),
    path("dashboard/health/", health, name="health"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("dashboard", RedirectView.as_view(pattern_name="proxy:overview")),
    re_path(rf"^(?!{_OWN})", views.relay_view, name="relay"),
]
