"""The admin: keys and limits are changed, the ledgers are read. It calls, and nobody calls it."""

from django.contrib import admin
from django.contrib.auth.models import Group
from django.utils.translation import gettext_lazy as _

from proxy.admin import keys, ledgers, quotas
from proxy.admin.names import set_names

__all__ = ["keys", "ledgers", "quotas"]

set_names()
admin.site.site_header = _("Gemini key manager")
admin.site.site_title = _("Gemini key manager")
admin.site.index_title = _("Keys and usage")
admin.site.site_url = None  # the pages link to the dashboard themselves
admin.site.enable_nav_sidebar = False  # lists need the width, and the index is one click away
admin.site.unregister(Group)
