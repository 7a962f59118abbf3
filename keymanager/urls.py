"""Our own paths first; whatever is left belongs to the Gemini API."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("proxy.urls")),
]
