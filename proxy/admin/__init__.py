"""The admin: keys and limits are changed, the ledgers are read. It calls, and nobody calls it."""

from django.contrib import admin
from django.contrib.auth.models import Group

from proxy.admin import keys, ledgers, quotas

__all__ = ["keys", "ledgers", "quotas"]

admin.site.site_header = "Gemini key manager"
admin.site.site_title = "Gemini key manager"
admin.site.index_title = "Keys and usage"
admin.site.site_url = None  # the pages link to the dashboard themselves
admin.site.enable_nav_sidebar = False  # lists need the width, and the index is one click away
admin.site.unregister(Group)
