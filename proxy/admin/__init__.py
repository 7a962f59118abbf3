"""The admin: keys and limits can be changed, usage and exhaustion can be read. No other code imports it."""

from django.contrib import admin
from django.contrib.auth.models import Group
from django.utils.translation import gettext_lazy as _

from proxy.admin import keys, ledgers, quotas

__all__ = ["keys", "ledgers", "quotas"]

admin.site.site_header = _("Gemini key manager")
admin.site.site_title = _("Gemini key manager")
admin.site.index_title = _("Keys and usage")
admin.site.site_url = None  # our pages link to the dashboard
admin.site.enable_nav_sidebar = False  # lists need the width
admin.site.unregister(Group)
