"""Google projects: the owners of quotas."""

from django.db import models
from django.db.models import Count, Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

CHUNK = 500  # keys or projects in one query


class ProjectQuerySet(models.QuerySet["Project"]):
    """Google projects."""

    def named(self, name: str) -> "Project":
        """Return the project with this name, creating it if necessary; for "", a new project whose name is unknown."""
        return self.get_or_create(name=name)[0] if name else self.create()

    def drop_empty(self) -> None:
        """Delete projects without a name and without a key: nothing can refer to them."""
        self.filter(name="").annotate(size=Count("keys")).filter(size=0).delete()


class Project(models.Model):
    """A Google project, which owns quotas. While its name is unknown, it has exactly one key."""

    name = models.CharField(
        _("name"),
        max_length=100,
        blank=True,
        help_text=_("The project's number or ID at Google, or any name. Keys of one project share its quotas."),
    )

    objects = ProjectQuerySet.as_manager()

    class Meta:
        verbose_name = _("project")
        verbose_name_plural = _("projects")
        constraints = [models.UniqueConstraint(fields=["name"], condition=~Q(name=""), name="one_project_of_a_name")]

    def __str__(self) -> str:
        return self.name or gettext("unknown")
