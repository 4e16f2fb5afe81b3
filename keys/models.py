"""API keys: the key is the identity and the policy, its secrets are the credentials."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from accounts.models import Account, User


class ApiKey(models.Model):
    """An identity of an account with a policy of its own. It keeps its id and history through every rotation."""

    class Environment(models.TextChoices):
        PRODUCTION = "production", "Production"
        STAGING = "staging", "Staging"
        DEVELOPMENT = "development", "Development"

    class Status(models.TextChoices):
        ACTIVE = "active", "Active"
        DISABLED = "disabled", "Disabled"
        REVOKED = "revoked", "Revoked"

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=80)
    purpose = models.CharField(max_length=300, blank=True)
    owner = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    environment = models.CharField(max_length=16, choices=Environment, default=Environment.DEVELOPMENT)
    status = models.CharField(max_length=16, choices=Status, default=Status.ACTIVE)
    expires_at = models.DateTimeField(null=True, blank=True)
    # Empty lists allow everything.
    allowed_models = ArrayField(models.CharField(max_length=120), default=list, blank=True)
    allowed_endpoints = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    allowed_networks = ArrayField(models.CharField(max_length=50), default=list, blank=True)
    # Tighter than the plan's, or null for the plan's own.
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    # Raised by every change to the key; the teller compares it before it admits a request.
    policy_version = models.PositiveIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["account", "-id"], name="api_key_by_account")]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(status__in=["active", "disabled", "revoked"]),
                name="api_key_status_is_known",
            ),
            models.CheckConstraint(
                condition=models.Q(status="revoked", revoked_at__isnull=False)
                | (~models.Q(status="revoked") & models.Q(revoked_at=None)),
                name="api_key_revoked_at_iff_revoked",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class KeySecret(models.Model):
    """One secret of a key: its keyed digest, and the first and last characters by which people recognise it."""

    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="secrets")
    digest = models.BinaryField(unique=True, max_length=32, editable=False)
    pepper_version = models.PositiveSmallIntegerField(editable=False)
    start = models.CharField(max_length=16, editable=False)
    end = models.CharField(max_length=8, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    # From this moment it is refused. Null: it is the key's current secret.
    retires_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["key"], condition=models.Q(retires_at=None), name="key_secret_one_current_per_key"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.start}…{self.end}"
