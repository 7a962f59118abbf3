"""Our own paths first; every other path belongs to the Gemini API."""

from django.contrib import admin
from django.urls import include, path
from django.views.i18n import set_language

urlpatterns = [
    path("admin/language/", set_language, name="set_language"),
    path("admin/", admin.site.urls),
    path("", include("proxy.urls")),
]
