"""Actions on several keys at once, for the admin and the dashboard alike."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop, ngettext
from django_stubs_ext import StrPromise

from proxy.accounts.activity import note
from proxy.models import ApiKey, Project, database_now
from proxy.models.keys import ApiKeyQuerySet
from proxy.pool.key_check import Verdict, check_keys

_MOST = 1000
_LONGEST_NAME = Project._meta.get_field("name").max_length or 0


@dataclass(frozen=True, slots=True)
class KeyAction:
    """Something to do with keys."""

    name: str
    label: StrPromise
    # What the activity log says, before translation.
    noted_as: str
    # Takes the keys, the moment and the name of a project; returns the level and the text of a message.
    run: Callable[[ApiKeyQuerySet, datetime, str], tuple[int, str]]
    needs_project: bool = False


def _enable(keys: ApiKeyQuerySet, moment: datetime, project: str) -> tuple[int, str]:
    count = keys.enable(moment)
    return messages.SUCCESS, ngettext("%(count)d key enabled.", "%(count)d keys enabled.", count) % {"count": count}


def _disable(keys: ApiKeyQuerySet, moment: datetime, project: str) -> tuple[int, str]:
    count = keys.disable(moment)
    return messages.SUCCESS, ngettext("%(count)d key disabled.", "%(count)d keys disabled.", count) % {"count": count}


def _revive(keys: ApiKeyQuerySet, moment: datetime, project: str) -> tuple[int, str]:
    count = keys.revive(moment)
    return messages.SUCCESS, ngettext("%(count)d key revived.", "%(count)d keys revived.", count) % {"count": count}


def _check(keys: ApiKeyQuerySet, moment: datetime, project: str) -> tuple[int, str]:
    verdicts = Counter(verdict for _key, verdict, _reason in check_keys(keys, moment))
    counts = {verdict.value: verdicts[verdict] for verdict in Verdict}
    level = messages.WARNING if verdicts[Verdict.BAD] else messages.SUCCESS
    return level, _("Checked: %(good)s good, %(bad)s bad, %(unknown)s unknown.") % counts


def _set_project(keys: ApiKeyQuerySet, moment: datetime, project: str) -> tuple[int, str]:
    count = keys.move_to(project, moment)
    text = ngettext("%(count)d key moved to %(project)s.", "%(count)d keys moved to %(project)s.", count)
    return messages.SUCCESS, text % {"count": count, "project": project}


ACTIONS = {
    action.name: action
    for action in (
        KeyAction(
            "check", gettext_lazy("Check with Google (uses no quota)"), gettext_noop("Checked with Google"), _check
        ),
        KeyAction("enable", gettext_lazy("Enable"), gettext_noop("Enabled"), _enable),
        KeyAction("disable", gettext_lazy("Disable"), gettext_noop("Disabled"), _disable),
        KeyAction("revive", gettext_lazy("Revive: clear faults and cooldowns"), gettext_noop("Revived"), _revive),
        KeyAction(
            "set_project",
            gettext_lazy("Set project"),
            gettext_noop("Moved to a project"),
            _set_project,
            needs_project=True,
        ),
    )
}


def apply(action: KeyAction, request: HttpRequest, keys: ApiKeyQuerySet, project: str = "") -> None:
    """Run an action, note it in the activity log, and leave a message. Raises PermissionDenied."""
    if not may_change_keys(request):
        raise PermissionDenied
    level, text = action.run(keys, database_now(), project)
    note(request.user, action.noted_as, keys, to=project)
    messages.add_message(request, level, text)


def may_change_keys(request: HttpRequest) -> bool:
    """Tell whether the user may run these actions."""
    return request.user.has_perm("proxy.change_apikey")


def apply_posted(request: HttpRequest) -> None:
    """Apply the posted `action` to the keys in `chosen`, or leave a message that says what is missing."""
    posted = request.POST
    # Up to 18 digits, which fit into a column.
    chosen = [int(text) for text in posted.getlist("chosen") if text.isascii() and text.isdigit() and len(text) < 19]
    action = ACTIONS.get(posted.get("action", ""))
    project = posted.get("project_name", "").replace("\0", "").strip()
    if not may_change_keys(request):
        raise PermissionDenied
    if not chosen:
        messages.warning(request, _("Select at least one key."))
    elif action is None:
        messages.warning(request, _("Choose an action."))
    elif action.needs_project and not 0 < len(project) <= _LONGEST_NAME:
        messages.warning(request, _("Enter the name of the project, with at most %s characters.") % _LONGEST_NAME)
    else:
        keys = ApiKey.objects.present().filter(id__in=chosen[:_MOST])
        apply(action, request, keys, project if action.needs_project else "")
