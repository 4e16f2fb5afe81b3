"""Users, the accounts they act for, the plans of those accounts, and the trail of what was done."""

from decimal import Decimal
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone


class UserManager(BaseUserManager["User"]):
    """Makes users by e-mail address; `create_superuser` is what `manage.py createsuperuser` calls."""

    def create_user(self, email: str, password: str | None = None, **extra: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **extra)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **extra: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **extra)


class User(AbstractBaseUser, PermissionsMixin):
    """A person who signs in with an e-mail address; there is no user name."""

    email = models.EmailField(
        "e-mail", unique=True, error_messages={"unique": "This e-mail is already in use."}
    )
    is_active = models.BooleanField(default=True, help_text="Clear this instead of deleting the user.")
    is_staff = models.BooleanField("operator", default=False, help_text="May use the operator's admin.")
    date_joined = models.DateTimeField(default=timezone.now)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(Lower("email"), name="user_email_unique_in_any_case"),
        ]

    def __str__(self) -> str:
        return self.email


class Plan(models.Model):
    """What an account may do: rates per key, the daily allowance per account, and the fee on a top-up.

    A limit of null means that the plan sets none.
    """

    BASIC = "basic"
    PAY_AS_YOU_GO = "pay-as-you-go"

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=60)
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True, help_text="Per key.")
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True, help_text="Per key.")
    requests_per_day = models.PositiveIntegerField(help_text="The allowance of an account for a UTC day.")
    tokens_per_day = models.PositiveIntegerField(help_text="The allowance of an account for a UTC day.")
    max_input_characters = models.PositiveIntegerField(null=True, blank=True, help_text="Per request.")
    premium_models = models.BooleanField(default=False, help_text="May call premium-tier models.")
    spends_credits = models.BooleanField(
        default=False, help_text="Goes on from credits where no allowance is left."
    )
    topup_fee_rate = models.DecimalField(
        max_digits=5,
        decimal_places=4,
        default=Decimal("0.25"),
        validators=[MinValueValidator(Decimal(0))],
        help_text="Of the credit bought: 0.25 charges $125.00 for $100.00 of credit.",
    )

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(topup_fee_rate__gte=0), name="plan_fee_rate_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Account(models.Model):
    """The tenant and the payer. Keys, money and usage belong to it; people reach it through a membership."""

    class Status(models.TextChoices):
        ACTIVE = "active", "Active"
        SUSPENDED = "suspended", "Suspended"

    name = models.CharField(max_length=120)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="accounts")
    status = models.CharField(max_length=16, choices=Status, default=Status.ACTIVE)
    # Raised by every change that the gateway must see before it admits another request.
    policy_version = models.PositiveIntegerField(default=1, editable=False)
    members = models.ManyToManyField(User, through="Membership", related_name="accounts")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(status__in=["active", "suspended"]), name="account_status_is_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user's role in an account."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        ADMIN = "admin", "Admin"
        MEMBER = "member", "Member"

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role, default=Role.OWNER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["account", "user"], name="membership_once_per_account_and_user"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.account}"


class AuditEvent(models.Model):
    """Who did what to which key, money or member. Written by the act itself, in its transaction; never changed."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="audit_events")
    # Null: the system did it (a payment arrived, a task ran).
    actor = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    action = models.CharField(
        max_length=60, help_text="As `key.rotated`: the thing, a dot, what happened to it."
    )
    subject_type = models.CharField(max_length=30)
    subject_id = models.CharField(max_length=64)
    detail = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["account", "-id"], name="audit_by_account"),
            models.Index(fields=["subject_type", "subject_id", "-id"], name="audit_by_subject"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.subject_type} {self.subject_id}"
