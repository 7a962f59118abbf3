"""Google projects, which quotas belong to."""

from django.db import models
from django.db.models import Count, Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

CHUNK = 500  # keys or projects in one query


class ProjectQuerySet(models.QuerySet["Project"]):
    """Google projects."""

    def named(self, name: str) -> "Project":
        """Return the project of this name, made if there was none; for "" a new one, whose name is not known yet."""
        return self.get_or_create(name=name)[0] if name else self.create()

    def drop_empty(self) -> None:
        """Delete those without a name and without a key: nobody could ever speak of them."""
        self.filter(name="").annotate(size=Count("keys")).filter(size=0).delete()


class Project(models.Model):
    """A Google project: what quotas belong to. As long as its name is not known, it holds one key."""

    name = models.CharField(
        max_length=100,
        blank=True,
        help_text=_("Its number or id, as Google shows it, or any name: keys of one project share its quotas."),
    )

    objects = ProjectQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name"], condition=~Q(name=""), name="one_project_of_a_name")]

    def __str__(self) -> str:
        return self.name or gettext("not known")
