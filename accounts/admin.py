"""People and accounts as the operator sees them. What the gateway must hear of goes through `accounts.plans`."""

from typing import TYPE_CHECKING, Any, ClassVar

from allauth.account.admin import EmailAddressAdmin
from allauth.account.decorators import secure_admin_login
from allauth.account.models import EmailAddress
from allauth.mfa.admin import AuthenticatorAdmin
from allauth.mfa.models import Authenticator
from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from accounts import plans
from accounts.models import Account, AuditEvent, Membership, Plan, User

if TYPE_CHECKING:
    _UserAdmin = admin.ModelAdmin[User]
    _PlanAdmin = admin.ModelAdmin[Plan]
    _AccountAdmin = admin.ModelAdmin[Account]
    _AuditEventAdmin = admin.ModelAdmin[AuditEvent]
    _MembershipInline = admin.TabularInline[Membership, Account]
else:
    _UserAdmin = _PlanAdmin = _AccountAdmin = _AuditEventAdmin = admin.ModelAdmin
    _MembershipInline = admin.TabularInline

admin.site.site_header = "Tollgate operator"
admin.site.site_title = "Tollgate operator"
admin.site.index_title = "Accounts, money, catalogue and usage"
# One door for everyone: allauth's login, with its rate limits and its second factor. Whoever is no operator gets 403.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]


class _NothingToSave:
    """For what comes about elsewhere: it is looked at here, and changed by actions or not at all."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(User)
class UserAdmin(_UserAdmin):
    """People sign up by themselves or through `manage.py create_account`, and set their own e-mail and password."""

    list_display = ("email", "is_active", "is_staff", "date_joined", "last_login")
    list_filter = ("is_active", "is_staff", "date_joined")
    search_fields = ("email", "=id")
    search_help_text = "E-mail, or the id of a user."
    fields = ("email", "is_active", "is_staff", "is_superuser", "groups", "date_joined", "last_login")
    filter_horizontal = ("groups",)
    ordering = ("-id",)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        """Only a superuser says who else is an operator, or operators could promote themselves."""
        fixed = ("email", "date_joined", "last_login")
        is_superuser = isinstance(request.user, User) and request.user.is_superuser
        return fixed if is_superuser else (*fixed, "is_staff", "is_superuser", "groups")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False


# allauth's own pages would let an operator read the secret of a second factor, and rewrite an address. Importing
# them above has registered them, so here they can be replaced.
admin.site.unregister([EmailAddress, Authenticator])


@admin.register(EmailAddress)
class AddressAdmin(EmailAddressAdmin):
    """Addresses, to be marked as verified by an action; their owners change them."""

    readonly_fields = ("user", "email", "primary", "verified")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: EmailAddress | None = None) -> bool:
        return False


@admin.register(Authenticator)
class SecondFactorAdmin(AuthenticatorAdmin):
    """Second factors, to be deleted for somebody who has lost theirs. What they are made of is never shown."""

    fields = ("user", "type", "created_at", "last_used_at")
    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(Plan)
class PlanAdmin(_PlanAdmin):
    list_display = (
        "name",
        "slug",
        "requests_per_minute",
        "tokens_per_minute",
        "requests_per_day",
        "tokens_per_day",
        "premium_models",
        "topup_fee_rate",
        "account_count",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        return super().get_queryset(request).annotate(account_count=Count("accounts"))

    @admin.display(description="accounts", ordering="account_count")
    def account_count(self, plan: Plan) -> int:
        return int(getattr(plan, "account_count", 0))

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> tuple[str, ...]:
        return () if obj is None else ("slug",)

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:  # noqa: FBT001
        """Save, and make the gateway judge the plan's accounts by it from the next request on."""
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            plans.touch_policy(accounts=Account.objects.filter(plan=obj))


class MembershipInline(_NothingToSave, _MembershipInline):
    model = Membership
    fields = ("user", "role", "created_at")
    readonly_fields = ("created_at",)
    verbose_name_plural = "members"


class SuspendForm(forms.Form):
    reason = forms.CharField(
        max_length=200, help_text="Kept in the audit log, which the account's members can read."
    )


class ChangePlanForm(forms.Form):
    plan = forms.ModelChoiceField(queryset=Plan.objects.order_by("id"))


@admin.register(Account)
class AccountAdmin(_NothingToSave, _AccountAdmin):
    list_display = ("name", "id", "plan", "status", "owners", "created_at")
    list_filter = ("status", "plan", "created_at")
    list_select_related = ("plan",)
    search_fields = ("name", "members__email", "=id")
    search_help_text = "Name, e-mail of a member, or the id of an account."
    ordering = ("-id",)
    fields = ("name", "plan", "status", "policy_version", "created_at")
    inlines: ClassVar = [MembershipInline]
    actions = ("suspend", "reinstate", "change_plan")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        return super().get_queryset(request).prefetch_related("memberships__user")

    @admin.display(description="owners")
    def owners(self, account: Account) -> str:
        owners = [m.user.email for m in account.memberships.all() if m.role == Membership.Role.OWNER]
        return ", ".join(owners)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the operator may suspend and move accounts: what Django calls changing them."""
        return request.user.has_perm("accounts.change_account")

    @admin.action(description="Suspend: refuse every request", permissions=["operate"])
    def suspend(self, request: HttpRequest, queryset: QuerySet[Account]) -> HttpResponse | None:
        form = SuspendForm(request.POST if "confirmed" in request.POST else None)
        if form.is_valid():
            for account in queryset:
                plans.suspend(account=account, actor=_operator(request), reason=form.cleaned_data["reason"])
            self.message_user(request, f"{len(queryset)} suspended.", messages.SUCCESS)
            return None
        effect = "Every request of these accounts is refused from now on. Keys, money and history stay."
        return self._ask(request, queryset, form, action="suspend", title="Suspend accounts", effect=effect)

    @admin.action(description="Reinstate: serve again", permissions=["operate"])
    def reinstate(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        for account in queryset:
            plans.reinstate(account=account, actor=_operator(request))
        self.message_user(request, f"{len(queryset)} served again.", messages.SUCCESS)

    @admin.action(description="Change the plan", permissions=["operate"])
    def change_plan(self, request: HttpRequest, queryset: QuerySet[Account]) -> HttpResponse | None:
        form = ChangePlanForm(request.POST if "confirmed" in request.POST else None)
        if form.is_valid():
            for account in queryset:
                plans.change_plan(account=account, plan=form.cleaned_data["plan"], actor=_operator(request))
            self.message_user(
                request, f"{len(queryset)} moved to {form.cleaned_data['plan']}.", messages.SUCCESS
            )
            return None
        effect = "The limits of the new plan hold from the next request on. Credits stay as they are."
        return self._ask(
            request, queryset, form, action="change_plan", title="Change the plan", effect=effect
        )

    def _ask(
        self,
        request: HttpRequest,
        accounts: QuerySet[Account],
        form: forms.Form,
        *,
        action: str,
        title: str,
        effect: str,
    ) -> HttpResponse:
        """The page between an action and its effect: what will happen to whom, and what it needs to know."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "effect": effect,
            "accounts": accounts,
            "form": form,
            "action": action,
        }
        return TemplateResponse(request, "admin/accounts/account/confirm_action.html", context)


@admin.register(AuditEvent)
class AuditEventAdmin(_NothingToSave, _AuditEventAdmin):
    list_display = ("created_at", "account", "actor", "action", "subject_type", "subject_id")
    list_filter = ("action", "created_at")
    list_select_related = ("account", "actor")
    search_fields = ("account__name", "actor__email", "=subject_id", "action")
    search_help_text = "Account, e-mail of the actor, id of the subject, or action."
    # Counting a trail of millions for the footer of a page would cost more than the page.
    show_full_result_count = False


def _operator(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - the admin lets nobody else in
    return request.user
