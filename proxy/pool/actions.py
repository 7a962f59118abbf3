"""What can be done with several keys at once; the same as the admin's actions do."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop

from proxy.accounts.activity import note
from proxy.models import ApiKey, Project
from proxy.models.keys import ApiKeyQuerySet
from proxy.pool.key_check import Verdict, check_keys

ACTIONS: dict[str, Promise] = {
    "enable": gettext_lazy("Enable"),
    "disable": gettext_lazy("Disable"),
    "check": gettext_lazy("Check with Google (spends no quota)"),
    "set_project": gettext_lazy("Set the project"),
}
_MOST = 1000
_LONGEST_NAME = Project._meta.get_field("name").max_length or 0


def act(request: HttpRequest, moment: datetime) -> None:
    """Do to the chosen keys what was posted, and leave a message that says what was done, or what was missing."""
    if not request.user.has_perm("proxy.change_apikey"):
        raise PermissionDenied
    posted = request.POST
    chosen = [int(text) for text in posted.getlist("chosen") if text.isascii() and text.isdigit() and len(text) < 19]
    action = _DONE.get(posted.get("action", ""))
    name = posted.get("project_name", "").replace("\0", "").strip()
    if not chosen:
        messages.warning(request, _("No key was chosen: tick the boxes of those that are meant."))
    elif action is None:
        messages.warning(request, _("Choose what is to be done with the keys."))
    elif action is _set_project and not 0 < len(name) <= _LONGEST_NAME:
        messages.warning(request, _("Write the name of the project, at most %s characters.") % _LONGEST_NAME)
    else:
        keys = ApiKey.objects.present().filter(id__in=chosen[:_MOST])
        level, told = action(keys, moment, name)
        note(request.user, _NOTED[posted["action"]], keys, to=name if action is _set_project else "")
        messages.add_message(request, level, told)


def _enable(keys: ApiKeyQuerySet, moment: datetime, name: str) -> tuple[int, str]:
    return messages.SUCCESS, _("%s enabled.") % keys.enable(moment)


def _disable(keys: ApiKeyQuerySet, moment: datetime, name: str) -> tuple[int, str]:
    return messages.SUCCESS, _("%s disabled.") % keys.disable(moment)


def _check(keys: ApiKeyQuerySet, moment: datetime, name: str) -> tuple[int, str]:
    verdicts = Counter(verdict for _key, verdict, _reason in check_keys(keys, moment))
    told = {verdict.value: verdicts[verdict] for verdict in Verdict}
    level = messages.WARNING if verdicts[Verdict.BAD] else messages.SUCCESS
    return level, _("Checked: %(good)s good, %(bad)s bad, %(unknown)s not known.") % told


def _set_project(keys: ApiKeyQuerySet, moment: datetime, name: str) -> tuple[int, str]:
    words = {"moved": keys.move_to(name, moment), "name": name}
    return messages.SUCCESS, _("%(moved)s moved to project %(name)s.") % words


_NOTED = {
    "enable": gettext_noop("Enabled"),
    "disable": gettext_noop("Disabled"),
    "check": gettext_noop("Checked with Google"),
    "set_project": gettext_noop("Moved to a project"),
}
_DONE: dict[str, Callable[[ApiKeyQuerySet, datetime, str], tuple[int, str]]] = {
    "enable": _enable,
    "disable": _disable,
    "check": _check,
    "set_project": _set_project,
}
